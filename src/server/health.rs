//! How well the servers of the cluster are, as the leader judges by Consul's rules (`agent/consul/autopilot`,
//! `/v1/operator/autopilot/health`). Pure: facts in, a judgement out.

use std::time::Duration;

use muster_protocol::entry::{Server, ServerId, Suffrage};
use rkyv::{Archive, Deserialize, Serialize};

use super::leader::COMPATIBLE_VERSION;
use crate::consensus::Standing;
use crate::membership::{Member, MemberStatus, Roster};
use crate::store::model::AutopilotConfig;

/// How well a cluster is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterHealth {
    /// All its servers are healthy.
    pub healthy: bool,
    /// How many healthy voters may fail before it stops.
    pub failure_tolerance: u64,
    /// Its servers, in the order of the configuration.
    pub servers: Vec<ServerHealth>,
}

/// How well one server is.
#[derive(Archive, Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ServerHealth {
    /// Who.
    pub id: ServerId,
    /// Name of its node.
    pub name: String,
    /// Where other servers reach it, `ip:port`.
    pub address: String,
    /// How membership sees it.
    pub seen: Seen,
    /// Version told to clients; empty while membership does not know the server.
    pub version: String,
    /// Whether it leads.
    pub leader: bool,
    /// What it may decide.
    pub suffrage: Suffrage,
    /// Nanoseconds since it answered the leader; `None` if it never did.
    pub last_contact_ns: Option<u64>,
    /// Term of the newest entry it is known to hold.
    pub last_term: u64,
    /// Index of that entry.
    pub last_index: u64,
    /// Whether it passes all rules.
    pub healthy: bool,
    /// When that last changed, seconds since 1970.
    pub stable_since_s: u64,
}

/// How membership sees a server.
#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// Not at all.
    None,
    /// It answers.
    Alive,
    /// It is about to leave.
    Leaving,
    /// It left.
    Left,
    /// It does not answer.
    Failed,
}

impl Seen {
    /// Consul's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Seen::None => "none",
            Seen::Alive => "alive",
            Seen::Leaving => "leaving",
            Seen::Left => "left",
            Seen::Failed => "failed",
        }
    }
}

impl From<MemberStatus> for Seen {
    fn from(status: MemberStatus) -> Seen {
        match status {
            MemberStatus::Alive => Seen::Alive,
            MemberStatus::Leaving => Seen::Leaving,
            MemberStatus::Left => Seen::Left,
            MemberStatus::Failed => Seen::Failed,
        }
    }
}

/// How far a server is, and when it was heard of.
struct Progress {
    contact: Option<Duration>,
    term: u64,
    index: u64,
}

impl ClusterHealth {
    /// Judges the servers of the leader's configuration. `before` is the judgement before this one, which knows
    /// since when each server is as it is; `now` is the time since 1970.
    pub fn judge(
        rules: &AutopilotConfig,
        standing: &Standing,
        roster: &Roster,
        before: &ClusterHealth,
        now: Duration,
    ) -> ClusterHealth {
        let judged = |server: &Server| {
            let was = before.server(server.id);
            judge(rules, standing, server, roster.server(server.id).map(|member| &**member), was, now)
        };
        let servers: Vec<ServerHealth> = standing.configuration.servers.iter().map(judged).collect();
        let voters = servers.iter().filter(|server| server.votes()).count();
        let healthy_voters = servers.iter().filter(|server| server.votes() && server.healthy).count();
        ClusterHealth {
            healthy: servers.iter().all(|server| server.healthy),
            failure_tolerance: healthy_voters.saturating_sub(voters / 2 + 1) as u64,
            servers,
        }
    }

    /// The judgement of one server.
    pub fn server(&self, id: ServerId) -> Option<&ServerHealth> {
        self.servers.iter().find(|server| server.id == id)
    }
}

impl ServerHealth {
    /// Whether it votes.
    pub fn votes(&self) -> bool {
        self.suffrage == Suffrage::Voter
    }

    /// Whether it has been healthy for long enough to be given a vote; `now` is the time since 1970.
    pub fn is_stable(&self, rules: &AutopilotConfig, now: Duration) -> bool {
        let since = now.saturating_sub(Duration::from_secs(self.stable_since_s));
        self.healthy && since >= nanoseconds(rules.server_stabilization_time_ns)
    }

    fn passes(&self, rules: &AutopilotConfig, standing: &Standing) -> bool {
        let behind = standing.last_log_index.saturating_sub(self.last_index);
        let in_touch = self
            .last_contact_ns
            .is_some_and(|ns| u128::from(ns) <= nanoseconds(rules.last_contact_threshold_ns).as_nanos());
        self.seen == Seen::Alive
            && in_touch
            && self.last_term == standing.last_log_term
            && behind <= rules.max_trailing_logs
    }
}

fn judge(
    rules: &AutopilotConfig,
    standing: &Standing,
    server: &Server,
    member: Option<&Member>,
    was: Option<&ServerHealth>,
    now: Duration,
) -> ServerHealth {
    let leader = standing.leader == Some(server.id);
    let progress = progress(standing, server.id);
    let mut health = ServerHealth {
        id: server.id,
        name: server.name.clone(),
        address: server.address.clone(),
        seen: member.map_or(Seen::None, |member| member.status.into()),
        version: member.map(|_| COMPATIBLE_VERSION.to_owned()).unwrap_or_default(),
        leader,
        suffrage: server.suffrage,
        last_contact_ns: progress.contact.map(|since| since.as_nanos() as u64),
        last_term: progress.term,
        last_index: progress.index,
        healthy: false,
        stable_since_s: now.as_secs(),
    };
    health.healthy = health.passes(rules, standing);
    if let Some(was) = was.filter(|was| was.healthy == health.healthy) {
        health.stable_since_s = was.stable_since_s;
    }
    health
}

fn progress(standing: &Standing, id: ServerId) -> Progress {
    if standing.id == Some(id) {
        let (term, index) = (standing.last_log_term, standing.last_log_index);
        return Progress { contact: Some(Duration::ZERO), term, index };
    }
    match standing.peers.iter().find(|peer| peer.id == id) {
        Some(peer) => Progress { contact: peer.last_contact, term: peer.match_term, index: peer.match_index },
        None => Progress { contact: None, term: 0, index: 0 },
    }
}

/// A length of time of the configuration; negative ones are none.
fn nanoseconds(ns: i64) -> Duration {
    Duration::from_nanos(ns.max(0) as u64)
}
