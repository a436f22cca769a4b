//! What consensus tells about itself.

use std::time::Duration;

/// Facts for `/v1/status/...`, `/v1/operator/raft/configuration` and the statistics of `/v1/agent/self`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether this server leads.
    pub is_leader: bool,
    /// Server address (`ip:port`) of the leader, if there is one.
    pub leader: Option<String>,
    /// Server addresses of all servers of the cluster, those that do not vote too, in order.
    pub peers: Vec<String>,
    /// Term of the leader.
    pub term: u64,
    /// Index of the newest entry of the log.
    pub last_log_index: u64,
    /// Term of that entry.
    pub last_log_term: u64,
    /// Index of the newest entry that a majority holds.
    pub commit_index: u64,
    /// Index of the newest entry in the published state.
    pub applied_index: u64,
}

/// How this agent stands to the leader, for reads. Cheap to ask for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// Whether this agent is a server or knows one.
    pub has_server: bool,
    /// Whether somebody leads.
    pub known_leader: bool,
    /// Whether this server leads and its lease holds now: the published state is as fresh as a default read needs.
    pub leads: bool,
    /// Whether, besides, it is the only voter: nobody else could have taken the lead from it.
    pub alone: bool,
    /// How old the leader's word is that the state here rests on: zero on the leader itself, `None` when no
    /// leader was ever heard of.
    pub last: Option<Duration>,
}
