//! Why a write was not taken.

use std::fmt;

/// Why a write was not taken. Nothing was changed, save where the variant says it may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeError {
    /// There is no leader to order it. The text is Consul's.
    NoLeader,
    /// This agent is a client and knows no server to hand it to. The text is Consul's.
    NoServers,
    /// The lead changed after the write was handed on: it may or may not be applied. The text is Consul's.
    LeadershipLost,
    /// The leader's disk is full: reads go on, writes are refused until there is room.
    DiskFull,
    /// The queue of waiting writes is full; the client should come again a little later.
    TooBusy,
    /// The command is larger than one may be.
    TooLarge {
        /// Its encoded length, bytes.
        length: usize,
        /// The limit, bytes.
        max: usize,
    },
    /// The agent is stopping; the write may or may not have been applied.
    Stopping,
}

impl fmt::Display for ProposeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ProposeError::NoLeader => f.write_str("No cluster leader"),
            ProposeError::NoServers => f.write_str("No known Consul servers"),
            ProposeError::LeadershipLost => f.write_str("leadership lost while committing log"),
            ProposeError::DiskFull => f.write_str(
                "write refused: the disk of the leader's data_dir is full; free some space there, writes go on by themselves then",
            ),
            ProposeError::TooBusy => f.write_str(
                "write refused: the queue of waiting writes is full; retry after a pause, and slow down writers if it lasts",
            ),
            ProposeError::TooLarge { length, max } => {
                write!(f, "write refused: it takes {length} bytes and one may take {max}; split it into smaller ones")
            }
            ProposeError::Stopping => {
                f.write_str("write not confirmed: the agent is stopping; ask another server whether it took place")
            }
        }
    }
}

impl std::error::Error for ProposeError {}
