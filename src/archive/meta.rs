//! `meta.json`: what an archive says of itself. Fields and their order are Consul's.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// What an archive says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Meta {
    /// Version of the format of this file, Consul's: 1.
    pub version: u64,
    /// Term, index and Unix time in milliseconds.
    #[serde(rename = "ID")]
    pub id: String,
    /// Index of the state.
    pub index: u64,
    /// Term of the leader at that index.
    pub term: u64,
    /// Addresses of the servers, as a MessagePack array in base64.
    pub peers: Option<String>,
    /// The servers.
    pub configuration: Servers,
    /// Index of the entry that made them.
    pub configuration_index: u64,
    /// Length of `state.bin`, bytes.
    pub size: u64,
}

/// See [`Meta`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Servers {
    /// In order.
    pub servers: Option<Vec<Server>>,
}

/// One server of the cluster that was saved. Only shown: a restore changes no membership.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Server {
    /// 0: votes; 1: never does; 2: will.
    pub suffrage: u64,
    /// Its ID.
    #[serde(rename = "ID")]
    pub id: String,
    /// `ip:port`.
    pub address: String,
}

impl Meta {
    /// The bytes of the file.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).expect("numbers and texts are always JSON");
        json.push(b'\n');
        json
    }
}

/// Addresses as Consul writes them beside the configuration: for versions before it had one.
pub(super) fn peers(servers: &[Server]) -> String {
    let mut packed = Vec::new();
    match u8::try_from(servers.len()) {
        Ok(few) if few < 16 => packed.push(0x90 | few),
        _ => {
            packed.push(0xdc);
            packed.extend_from_slice(&u16::try_from(servers.len()).unwrap_or(u16::MAX).to_be_bytes());
        }
    }
    for server in servers.iter().take(usize::from(u16::MAX)) {
        match u8::try_from(server.address.len()) {
            Ok(short) if short < 32 => packed.push(0xa0 | short),
            _ => {
                packed.push(0xda);
                packed.extend_from_slice(&u16::try_from(server.address.len()).unwrap_or(0).to_be_bytes());
            }
        }
        packed.extend_from_slice(server.address.as_bytes());
    }
    STANDARD.encode(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_what_consul_writes() {
        let server = Server {
            suffrage: 0,
            id: "7e156a42-c1d9-2c65-ad35-08b97d72f40c".into(),
            address: "127.0.0.1:28300".into(),
        };
        let meta = Meta {
            version: 1,
            id: "2-14-1795371027608".into(),
            index: 14,
            term: 2,
            peers: Some(peers(std::slice::from_ref(&server))),
            configuration: Servers { servers: Some(vec![server]) },
            configuration_index: 1,
            size: 5093,
        };
        let consul = "{\"Version\":1,\"ID\":\"2-14-1795371027608\",\"Index\":14,\"Term\":2,\
            \"Peers\":\"ka8xMjcuMC4wLjE6MjgzMDA=\",\"Configuration\":{\"Servers\":[{\"Suffrage\":0,\
            \"ID\":\"7e156a42-c1d9-2c65-ad35-08b97d72f40c\",\"Address\":\"127.0.0.1:28300\"}]},\
            \"ConfigurationIndex\":1,\"Size\":5093}\n";
        assert_eq!(String::from_utf8(meta.encode()).unwrap(), consul);
        assert_eq!(serde_json::from_str::<Meta>(consul).unwrap(), meta);
    }
}
