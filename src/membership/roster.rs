//! The members that are known, as a value.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use muster_protocol::entry::ServerId;
use muster_protocol::wire::ClusterId;

/// The members that this agent knows, itself among them, in order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    members: Vec<Member>,
}

/// A member as it was last heard of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is, for good.
    pub id: ServerId,
    /// Name of its node.
    pub name: String,
    /// Address that it tells others.
    pub ip: IpAddr,
    /// Its port of LAN gossip, where it is introduced to others.
    pub serf_lan_port: u16,
    /// Its datacenter.
    pub datacenter: String,
    /// Its network segment.
    pub segment: String,
    /// Facts of a server. Clients come in with gossip.
    pub server: ServerFacts,
    /// When its process started, milliseconds since 1970 by its own clock: what it said later counts.
    pub started_ms: u64,
    /// How it is.
    pub status: MemberStatus,
    /// Since when it is so, since 1970 by the clock of this agent.
    pub since: Duration,
}

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
}

/// How a member is; the numbers are Consul's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum MemberStatus {
    /// It answers.
    Alive = 1,
    /// It is about to leave.
    Leaving = 2,
    /// It left.
    Left = 3,
    /// It does not answer.
    Failed = 4,
}

impl Member {
    /// Where other servers reach it.
    pub fn server_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.server.port)
    }

    /// Where it is introduced to others.
    pub fn serf_lan_address(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.serf_lan_port)
    }

    /// What Consul's gossip tells of a server, in order of the names. `build` is the version that clients are told.
    pub fn tags(&self, build: &str) -> Vec<(&'static str, String)> {
        let server = &self.server;
        let mut tags = vec![("acls", "0".to_owned())];
        if server.bootstrap {
            tags.push(("bootstrap", "1".to_owned()));
        }
        tags.push(("build", format!("{build}:")));
        tags.push(("dc", self.datacenter.clone()));
        if server.expect > 0 {
            tags.push(("expect", server.expect.to_string()));
        }
        tags.push(("ft_fs", "1".to_owned()));
        tags.push(("id", self.id.to_string()));
        if server.non_voter {
            tags.push(("nonvoter", "1".to_owned()));
        }
        tags.push(("port", server.port.to_string()));
        tags.push(("raft_vsn", "3".to_owned()));
        tags.push(("role", "consul".to_owned()));
        tags.push(("segment", self.segment.clone()));
        for (name, version) in [("vsn", "2"), ("vsn_max", "3"), ("vsn_min", "2")] {
            tags.push((name, version.to_owned()));
        }
        if let Some(port) = server.wan_join_port {
            tags.push(("wan_join_port", port.to_string()));
        }
        tags
    }

    /// Whether it answered when it was last asked.
    pub fn is_alive(&self) -> bool {
        self.status == MemberStatus::Alive
    }
}

impl Roster {
    /// Puts members in order.
    pub fn new(mut members: Vec<Member>) -> Roster {
        members.sort_by(|one, other| (&one.name, one.id).cmp(&(&other.name, other.id)));
        Roster { members }
    }

    /// All members, in order of their names.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member with this ID.
    pub fn member(&self, id: ServerId) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// The member with this name, in any case; the one that answers if two have it.
    pub fn named(&self, name: &str) -> Option<&Member> {
        let mut found = self.members.iter().filter(|member| member.name.eq_ignore_ascii_case(name));
        let first = found.next()?;
        Some(if first.is_alive() { first } else { found.find(|member| member.is_alive()).unwrap_or(first) })
    }
}
