//! The servers that an operator puts in the place of those in the log, to revive a cluster whose majority is lost: what
//! `peers.json` says, and what that means for the log at hand.

use muster_protocol::entry::{Configuration, Server, ServerId, Suffrage};
use serde::Deserialize;

/// One server of `peers.json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForcedServer {
    /// Who; `None` in the old form of the file, which has addresses only.
    pub id: Option<ServerId>,
    /// Where other servers reach it, `ip:port`.
    pub address: String,
    /// It receives the log and never votes.
    pub non_voter: bool,
}

/// The servers of `peers.json`, at least one of which votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forced(pub Vec<ForcedServer>);

/// A line of the file, in either form.
#[derive(Deserialize)]
#[serde(untagged)]
enum Line {
    Address(String),
    Server {
        id: String,
        address: String,
        #[serde(default)]
        non_voter: bool,
    },
}

impl Forced {
    /// Reads the file: a JSON array of `{"id", "address", "non_voter"}`, or (Raft protocol 2) of addresses.
    ///
    /// # Errors
    /// It is something else, names a server twice, or nobody votes. The texts are Consul's where it has one.
    pub fn parse(bytes: &[u8]) -> Result<Forced, String> {
        let lines: Vec<Line> = serde_json::from_slice(bytes).map_err(|why| {
            format!("{why}; expected an array of {{\"id\", \"address\", \"non_voter\"}} or of addresses")
        })?;
        let servers = lines.into_iter().map(Line::server).collect::<Result<Vec<_>, _>>()?;
        for (place, server) in servers.iter().enumerate() {
            let before = &servers[..place];
            if let Some(id) = server.id.filter(|id| before.iter().any(|other| other.id == Some(*id))) {
                return Err(format!("found duplicate ID in configuration: {:?}", id.to_string()));
            }
            if before.iter().any(|other| other.address == server.address) {
                return Err(format!("found duplicate address in configuration: {:?}", server.address));
            }
        }
        if servers.iter().all(|server| server.non_voter) {
            return Err("need at least one voter in configuration".to_owned());
        }
        Ok(Forced(servers))
    }

    /// The configuration to put into the log. `known` is the log's last one: it knows names, and whose addresses those
    /// of the old form are. `own` is this server.
    ///
    /// # Errors
    /// An address of the old form is nobody's, or this server is not among those named.
    pub fn over(&self, known: &Configuration, own: &Server) -> Result<Configuration, String> {
        let servers = self.0.iter().map(|forced| {
            let held = match forced.id {
                Some(id) if id == own.id => Some(own),
                Some(id) => known.server(id),
                None if forced.address == own.address => Some(own),
                None => known.servers.iter().find(|server| server.address == forced.address),
            };
            let unknown = || {
                format!(
                    "no server of the log has the address {:?}; name its \"id\" too (it is in the file node-id of that server's data_dir)",
                    forced.address
                )
            };
            let id = forced.id.or(held.map(|held| held.id)).ok_or_else(unknown)?;
            let suffrage = if forced.non_voter { Suffrage::NonVoter } else { Suffrage::Voter };
            let name = held.map(|held| held.name.clone()).unwrap_or_default();
            Ok(Server { id, name, address: forced.address.clone(), suffrage })
        });
        let configuration = Configuration::new(servers.collect::<Result<_, String>>()?);
        if configuration.server(own.id).is_none() {
            return Err(format!(
                "this server (id {}, address {}) is not among its servers",
                own.id, own.address
            ));
        }
        Ok(configuration)
    }
}

impl Line {
    fn server(self) -> Result<ForcedServer, String> {
        let (id, address, non_voter) = match self {
            Line::Address(address) => (None, address, false),
            Line::Server { id, .. } if id.is_empty() => return Err("empty ID in configuration".to_owned()),
            Line::Server { id, address, non_voter } => {
                let parsed = ServerId::parse(&id);
                let wrong = || format!("the id {id:?} is no node ID: it must be a UUID of 36 characters");
                (Some(parsed.ok_or_else(wrong)?), address, non_voter)
            }
        };
        if address.is_empty() {
            return Err("empty address in configuration".to_owned());
        }
        if address.parse::<std::net::SocketAddr>().is_err() {
            return Err(format!("the address {address:?} is no ip:port"));
        }
        Ok(ForcedServer { id, address, non_voter })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaa-0000-4000-8000-000000000001";
    const B: &str = "aaaaaaaa-0000-4000-8000-000000000002";

    fn server(id: &str, name: &str, port: u16) -> Server {
        let id = ServerId::parse(id).expect("a UUID");
        Server { id, name: name.into(), address: format!("10.0.0.1:{port}"), suffrage: Suffrage::Voter }
    }

    #[test]
    fn both_forms_are_read_over_what_the_log_knows() {
        let (own, other) = (server(A, "a", 1), server(B, "b", 2));
        let known = Configuration::new(vec![server(A, "old", 9), other.clone()]);
        let text = format!(
            r#"[{{"id": "{A}", "address": "10.0.0.1:1"}}, {{"id": "{B}", "address": "10.0.0.7:2", "non_voter": true}}]"#
        );
        let forced = Forced::parse(text.as_bytes()).expect("valid");
        let moved = Server { address: "10.0.0.7:2".into(), suffrage: Suffrage::NonVoter, ..other.clone() };
        assert_eq!(forced.over(&known, &own), Ok(Configuration::new(vec![own.clone(), moved])));
        let forced = Forced::parse(br#"["10.0.0.1:1", "10.0.0.1:2"]"#).expect("valid");
        assert_eq!(forced.over(&known, &own), Ok(Configuration::new(vec![own.clone(), other])));
        let why = forced.over(&Configuration::default(), &own).expect_err("nobody knows who that is");
        assert!(why.contains("10.0.0.1:2"), "{why}");
        let alone = Forced::parse(br#"["10.0.0.1:2"]"#).expect("valid");
        let why = alone.over(&known, &own).expect_err("this server would shut itself out");
        assert!(why.contains("is not among its servers"), "{why}");
    }

    #[test]
    fn mistakes_are_named() {
        for (text, said) in [
            ("", "EOF while parsing"),
            ("{}", "expected an array"),
            ("[]", "need at least one voter in configuration"),
            (r#"["here"]"#, "no ip:port"),
            (r#"["10.0.0.1:1", "10.0.0.1:1"]"#, "found duplicate address in configuration"),
            (r#"[{"id": "", "address": "10.0.0.1:1"}]"#, "empty ID in configuration"),
            (r#"[{"id": "a", "address": "10.0.0.1:1"}]"#, "must be a UUID"),
        ] {
            let why = Forced::parse(text.as_bytes()).expect_err(text);
            assert!(why.contains(said), "{text}: {why}");
        }
        let twice =
            format!(r#"[{{"id": "{A}", "address": "1.1.1.1:1"}}, {{"id": "{A}", "address": "1.1.1.1:2"}}]"#);
        assert!(Forced::parse(twice.as_bytes()).expect_err("twice").contains("found duplicate ID"));
        let silent = format!(r#"[{{"id": "{A}", "address": "1.1.1.1:1", "non_voter": true}}]"#);
        assert!(Forced::parse(silent.as_bytes()).expect_err("nobody").contains("at least one voter"));
    }
}
