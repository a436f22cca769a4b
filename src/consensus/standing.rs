//! How a server stands in its cluster, for whoever asks.

use std::sync::Arc;
use std::time::Duration;

use muster_protocol::entry::{Configuration, Server, ServerId};

/// Facts about leadership, membership and the log as one server knows them. A clone shares the lists.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// This server; `None` before it has started.
    pub id: Option<ServerId>,
    /// What it does.
    pub role: Role,
    /// The newest term it knows.
    pub term: u64,
    /// Who leads in that term, if that is known.
    pub leader: Option<ServerId>,
    /// The servers of the cluster, as the log says (committed or not).
    pub configuration: Arc<Configuration>,
    /// Index of the entry that says so.
    pub configuration_index: u64,
    /// Whether that entry is committed.
    pub configuration_committed: bool,
    /// On a leader: how far the other servers are. Refreshed a few times a second.
    pub peers: Arc<[PeerProgress]>,
    /// Index of the newest entry of the log.
    pub last_log_index: u64,
    /// Term of that entry.
    pub last_log_term: u64,
    /// Index of the newest entry that a majority holds.
    pub commit_index: u64,
    /// Index of the log's newest entry in the published state.
    pub applied_index: u64,
    /// Index of the last entry in the newest snapshot; 0 if there is none.
    pub snapshot_index: u64,
    /// Term of that entry.
    pub snapshot_term: u64,
    /// How old the leader's last word is: zero on the leader itself, `None` if none was ever heard.
    pub last_contact: Option<Duration>,
    /// Whether this server holds no part of any cluster's log: it may be bootstrapped or added.
    pub blank: bool,
    /// Whether its disk is full, so that no write is taken.
    pub disk_full: bool,
    /// Whether it is being repaired from its peers after damage, and does not vote until then.
    pub repairing: bool,
}

impl Standing {
    /// Whether this server leads.
    pub fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// The leader's row in the configuration.
    pub fn leader(&self) -> Option<&Server> {
        self.configuration.server(self.leader?)
    }
}

/// What a server does in its cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// It follows a leader, or waits for one.
    #[default]
    Follower,
    /// It asks for votes.
    Candidate,
    /// It leads.
    Leader,
}

/// How a leader sees another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerProgress {
    /// Who.
    pub id: ServerId,
    /// Index of the newest entry that it is known to hold durably.
    pub match_index: u64,
    /// Term of that entry; 0 if there is none.
    pub match_term: u64,
    /// How long ago it last answered; `None` if never in this term.
    pub last_contact: Option<Duration>,
    /// Whether it is being sent a snapshot.
    pub in_snapshot: bool,
}
