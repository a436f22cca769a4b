//! `ContentHash` of a service: Consul's number for the same service, by which a watcher tells one version from another. Consul takes
//! it from the fields of its API's `AgentService` by mitchellh/hashstructure: FNV-1 of each name and value, fields in no order.

use crate::store::model::{Service, ServiceAddress, Weights};

/// Of 64-bit FNV.
const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash, in hex digits without leading zeros, as Consul writes it.
pub fn content_hash(row: &Service) -> String {
    let meta = row.meta.iter().flatten().map(|(key, value)| (text(key), text(value)));
    let tagged = row.tagged_addresses.iter().flatten().map(|(tag, at)| (text(tag), address(at)));
    let hash = structure(
        "AgentService",
        [
            ("Kind", text(&row.kind)),
            ("ID", text(&row.id)),
            ("Service", text(&row.name)),
            ("Tags", row.tags.iter().fold(0, |all, tag| pair(all, text(tag)))),
            ("Meta", map(meta)),
            ("Port", number(row.port)),
            ("Address", text(&row.address)),
            ("TaggedAddresses", map(tagged)),
            ("Weights", weights(&row.weights)),
            ("EnableTagOverride", fnv(&[u8::from(row.enable_tag_override)])),
            // Known to the servers, not to the agent.
            ("CreateIndex", number(0)),
            ("ModifyIndex", number(0)),
            ("ContentHash", text("")),
            // Of the service mesh: nil, which counts as a number.
            ("Proxy", number(0)),
            ("Connect", number(0)),
        ],
    );
    format!("{hash:x}")
}

fn weights(weights: &Weights) -> u64 {
    structure("AgentWeights", [("Passing", number(weights.passing)), ("Warning", number(weights.warning))])
}

fn address(at: &ServiceAddress) -> u64 {
    structure("ServiceAddress", [("Address", text(&at.address)), ("Port", number(at.port))])
}

fn structure<const N: usize>(name: &str, fields: [(&str, u64); N]) -> u64 {
    fields.into_iter().fold(text(name), |all, (field, value)| all ^ pair(text(field), value))
}

fn map(entries: impl Iterator<Item = (u64, u64)>) -> u64 {
    entries.fold(0, |all, (key, value)| all ^ pair(key, value))
}

fn pair(first: u64, second: u64) -> u64 {
    fnv(&[first.to_le_bytes(), second.to_le_bytes()].concat())
}

fn number(value: i64) -> u64 {
    fnv(&value.to_le_bytes())
}

fn text(value: &str) -> u64 {
    fnv(value.as_bytes())
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| hash.wrapping_mul(PRIME) ^ u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of a real Consul 1.8.7.
    #[test]
    fn it_is_consuls_number() {
        let plain = Service {
            id: "foo".into(),
            name: "foo".into(),
            tags: vec!["bar".into(), "baz".into()],
            port: 8000,
            ..Service::default()
        };
        assert_eq!(content_hash(&plain), "6b13684bfe179e67");
        let full = Service {
            address: "10.1.2.3".into(),
            meta: Some([("k", "v"), ("l", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            // The last two are of the agent's own making.
            tagged_addresses: Some(
                [
                    ("lan", "10.1.2.3", 80),
                    ("wan", "1.2.3.4", 81),
                    ("lan_ipv4", "10.1.2.3", 8000),
                    ("wan_ipv4", "10.1.2.3", 8000),
                ]
                .map(|(tag, address, port)| {
                    (tag.to_owned(), ServiceAddress { address: address.to_owned(), port })
                })
                .into(),
            ),
            weights: Weights { passing: 5, warning: 2 },
            enable_tag_override: true,
            ..plain
        };
        assert_eq!(content_hash(&full), "83cc413b8bf9a328");
    }
}
