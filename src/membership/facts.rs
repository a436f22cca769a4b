//! What agents say of themselves in their tags. The names are Consul's (`agent/consul/server_serf.go`, `client_serf.go`); ours
//! begin with `_`, and only Muster's agents see them.

use std::collections::BTreeMap;

use muster_protocol::entry::ServerId;
use muster_protocol::gossip::Tags;
use muster_protocol::wire::ClusterId;

use crate::config::Config;

/// The role of servers.
const SERVER_ROLE: &str = "consul";
/// The role of clients.
const CLIENT_ROLE: &str = "node";
/// The version of Consul that clients are told.
const COMPATIBLE_VERSION: &str = "1.8.7";
/// The cluster that a server belongs to.
pub(super) const CLUSTER: &str = "_cluster";
/// That a server has a log.
const LOG: &str = "_log";
/// Whom a server without a cluster knows.
const KNOWS: &str = "_knows";

/// Tags of this agent, by name.
pub type OwnTags = BTreeMap<String, String>;

/// What a server tells about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerFacts {
    /// Port of server RPC.
    pub port: u16,
    /// Port of WAN gossip; `None` when off.
    pub wan_join_port: Option<u16>,
    /// `-bootstrap`: it makes itself the first of a cluster.
    pub bootstrap: bool,
    /// `-bootstrap-expect`: how many first servers it waits for; 0 when it waits for none.
    pub expect: u32,
    /// It never votes.
    pub non_voter: bool,
    /// The cluster that it belongs to; `None` while it is blank.
    pub cluster: Option<ClusterId>,
    /// It has a log: it is no candidate for the first servers of a new cluster.
    pub has_log: bool,
    /// The digest of those it knows alive, while it is blank: see [`digest`].
    pub knows: Option<u64>,
}

impl ServerFacts {
    /// What these tags say of a server; `None` for a client, and for who claims to be a server without saying where.
    pub fn of(tags: &Tags) -> Option<ServerFacts> {
        if tags.get("role") != Some(SERVER_ROLE) {
            return None;
        }
        let port =
            |name: &str| tags.get(name).and_then(|port| port.parse::<u16>().ok()).filter(|port| *port > 0);
        Some(ServerFacts {
            port: port("port")?,
            wan_join_port: port("wan_join_port"),
            bootstrap: tags.get("bootstrap").is_some(),
            expect: tags.get("expect").and_then(|expect| expect.parse().ok()).unwrap_or(0),
            non_voter: tags.get("nonvoter").is_some(),
            cluster: tags.get(CLUSTER).and_then(ClusterId::parse),
            has_log: tags.get(LOG).is_some(),
            knows: tags.get(KNOWS).and_then(|digest| u64::from_str_radix(digest, 16).ok()),
        })
    }
}

/// What an agent of this configuration says of itself.
pub fn own_tags(config: &Config, id: &str) -> OwnTags {
    let mut tags = OwnTags::new();
    let mut tag = |name: &str, value: String| tags.insert(name.to_owned(), value);
    tag("acls", "0".to_owned());
    tag("build", format!("{COMPATIBLE_VERSION}:"));
    tag("dc", config.datacenter.clone());
    tag("id", id.to_owned());
    tag("role", if config.server { SERVER_ROLE } else { CLIENT_ROLE }.to_owned());
    tag("segment", config.segment.clone());
    for (name, version) in [("vsn", "2"), ("vsn_max", "3"), ("vsn_min", "2")] {
        tag(name, version.to_owned());
    }
    if !config.server {
        return tags;
    }
    if config.bootstrap && !config.dev_mode {
        tag("bootstrap", "1".to_owned());
    }
    if config.bootstrap_expect > 0 {
        tag("expect", config.bootstrap_expect.to_string());
    }
    if config.non_voting_server {
        tag("nonvoter", "1".to_owned());
    }
    tag("ft_fs", "1".to_owned());
    tag("port", config.ports.server.to_string());
    tag("raft_vsn", "3".to_owned());
    if let Some(port) = config.ports.serf_wan {
        tag("wan_join_port", port.to_string());
    }
    tags
}

/// Says in a server's tags what becomes of it.
pub fn set_standing(tags: &mut OwnTags, cluster: Option<ClusterId>, has_log: bool, knows: Option<u64>) {
    let mut set = |name: &str, value: Option<String>| match value {
        Some(value) => drop(tags.insert(name.to_owned(), value)),
        None => drop(tags.remove(name)),
    };
    set(CLUSTER, cluster.map(|cluster| cluster.to_string()));
    set(LOG, has_log.then(|| "1".to_owned()));
    set(KNOWS, knows.map(|digest| format!("{digest:x}")));
}

/// A digest of servers, in any order: two that know the same ones say the same (FNV-1a; nobody gains by a collision, since those who make
/// a cluster together trust each other).
pub fn digest(servers: impl IntoIterator<Item = ServerId>) -> u64 {
    let mut sorted: Vec<ServerId> = servers.into_iter().collect();
    sorted.sort_unstable();
    sorted.dedup();
    let bytes = sorted.iter().flat_map(|id| id.0);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(own: &OwnTags) -> Tags {
        Tags::new(own.iter().map(|(name, value)| (name.as_str(), value.as_str()))).expect("short")
    }

    #[test]
    fn a_server_is_read_from_its_tags() {
        let mut own = OwnTags::from(
            [("role", "consul"), ("port", "8300"), ("expect", "3"), ("nonvoter", "1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        let cluster = ClusterId([7; 16]);
        set_standing(&mut own, Some(cluster), true, Some(0xab));
        let facts = ServerFacts::of(&tags(&own)).expect("a server");
        let expected = ServerFacts {
            port: 8300,
            expect: 3,
            non_voter: true,
            cluster: Some(cluster),
            has_log: true,
            knows: Some(0xab),
            ..ServerFacts::default()
        };
        assert_eq!(facts, expected);
        set_standing(&mut own, None, false, None);
        assert_eq!(own.len(), 4, "{own:?}");
        own.insert("port".into(), "none".into());
        assert_eq!(ServerFacts::of(&tags(&own)), None);
    }

    #[test]
    fn a_digest_knows_no_order() {
        let [one, other] = [ServerId([1; 16]), ServerId([2; 16])];
        assert_eq!(digest([one, other]), digest([other, one, one]));
        assert_ne!(digest([one, other]), digest([one]));
    }
}
