//! What operators and leader duties ask of consensus.

use std::fmt;

use muster_protocol::entry::{Configuration, Server, ServerId};

/// One request. All but [`AdminOp::Bootstrap`] and [`AdminOp::Snapshot`] are for the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminOp {
    /// Adds a server, or changes the name and address of one that is there. As [`Suffrage::Voter`] only if
    /// it votes already; new servers come as learners or non-voters.
    ///
    /// [`Suffrage::Voter`]: muster_protocol::entry::Suffrage::Voter
    AddServer(Server),
    /// Takes a server out of the cluster. The leader itself may go too: it steps down once the change is committed.
    RemoveServer(ServerId),
    /// Gives a learner the vote.
    Promote(ServerId),
    /// Takes the vote of a server; it goes on as a non-voter.
    Demote(ServerId),
    /// Hands the lead to another voter, or to the one that is furthest.
    Transfer(Option<ServerId>),
    /// Takes a snapshot now, on this server; done once it is durable.
    Snapshot,
    /// Starts a cluster with these servers, on a blank server: its first entry, durable when done.
    Bootstrap(Configuration),
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdminError {
    /// This server does not lead. The text is Consul's.
    NotLeader,
    /// The lead was lost on the way; the change may or may not be made. The text is Consul's.
    LeadershipLost,
    /// Another change of the cluster's servers is not committed yet; ask again.
    ChangePending,
    /// It cannot be done, and why.
    Refused(String),
    /// The agent is stopping, or is no server.
    Stopping,
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AdminError::NotLeader => f.write_str("node is not the leader"),
            AdminError::LeadershipLost => f.write_str("leadership lost while committing log"),
            AdminError::ChangePending => {
                f.write_str("another change of the cluster's servers is under way; ask again in a moment")
            }
            AdminError::Refused(why) => f.write_str(why),
            AdminError::Stopping => f.write_str("not confirmed: the agent is stopping"),
        }
    }
}

impl std::error::Error for AdminError {}
