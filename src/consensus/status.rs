//! What consensus tells about itself.

/// Facts for `/v1/status/...`, `/v1/operator/raft/configuration` and the statistics of `/v1/agent/self`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// Whether this server leads.
    pub is_leader: bool,
    /// Server address (`ip:port`) of the leader, if there is one.
    pub leader: Option<String>,
    /// Server addresses of all voters, this one too, in order.
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
