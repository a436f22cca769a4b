//! What agents say of themselves in their tags. The names are Consul's (`agent/consul/server_serf.go`, `client_serf.go`); ours
//! begin with `_`, and only Muster's agents see them.

use std::collections::BTreeMap;

use muster_protocol::entry::ServerId;
use muster_protocol::gossip::Tags;
use muster_protocol::wire::ClusterId;

/// The role of servers.
const SERVER_ROLE: &str = "consul";
/// The version of Consul that clients are told.
const COMPATIBLE_VERSION: &str = "1.8.7";
/// The cluster that a server belongs to.
const CLUSTER: &str = "_cluster";
/// That a server has a log.
const LOG: &str = "_log";
/// Whom a server without a cluster knows.
const KNOWS: &str = "_knows";

/// Tags of this agent, by name.
type OwnTags = BTreeMap<String, String>;

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
    /// The digest of those it knows alive, while it is blank.
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

    /// As tags.
    pub fn tags(&self, datacenter: &str, segment: &str, id: ServerId) -> Tags {
        let mut own = OwnTags::new();
        let mut tag = |name: &str, value: String| own.insert(name.to_owned(), value);
        tag("acls", "0".to_owned());
        tag("build", format!("{COMPATIBLE_VERSION}:"));
        tag("dc", datacenter.to_owned());
        tag("id", id.to_string());
        tag("role", SERVER_ROLE.to_owned());
        tag("segment", segment.to_owned());
        for (name, version) in [("vsn", "2"), ("vsn_max", "3"), ("vsn_min", "2")] {
            tag(name, version.to_owned());
        }
        if self.bootstrap {
            tag("bootstrap", "1".to_owned());
        }
        if self.expect > 0 {
            tag("expect", self.expect.to_string());
        }
        if self.non_voter {
            tag("nonvoter", "1".to_owned());
        }
        tag("ft_fs", "1".to_owned());
        tag("port", self.port.to_string());
        tag("raft_vsn", "3".to_owned());
        if let Some(port) = self.wan_join_port {
            tag("wan_join_port", port.to_string());
        }
        Tags::new(own.iter().map(|(name, value)| (name.as_str(), value.as_str()))).unwrap_or_default()
    }
}
