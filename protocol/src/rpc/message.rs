//! The messages between two servers of a cluster. Links deliver those of one connection in order, or not at all; they
//! may lose any. Who sends one that matters sends it again, or tells its client that the outcome is unknown.

use bytes::Bytes;

use crate::raft;

/// Data of one [`SnapshotChunk`] at most, bytes. Small enough that a heartbeat behind it on the same link is not late
/// (2 ms at 1 Gbit/s), large enough that the acknowledgements cost nothing.
pub const SNAPSHOT_CHUNK_MAX: usize = 256 << 10;

/// Tokens of one request at most: writes and reads that one step of a server hands on together.
pub const FORWARD_MAX: usize = 1024;

/// A question or an answer of the agents' own at most, bytes: facts about a few servers take far less.
pub const ASK_LENGTH_MAX: usize = 64 << 10;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerMessage {
    /// What the servers decide by. Entries in it are filled in; their bodies lie aligned.
    Raft(raft::Message),
    /// Writes that a server without the lead took in, for the leader to order.
    Forward(Vec<Forwarded>),
    /// What became of them, in any order.
    ForwardAnswers(Vec<ForwardAnswer>),
    /// From which index on is a state fresh enough to read from? All reads that wait at the asker share a question.
    ReadIndex {
        /// Chosen by the asker.
        token: u64,
        /// Whether a majority must confirm the leader first (`?consistent`); else its lease is enough.
        consistent: bool,
    },
    /// The answer: `None` when the asked server does not lead, or lost the lead meanwhile.
    ReadIndexAnswer {
        /// The question's.
        token: u64,
        /// Index of the log that the asker's state must have reached.
        index: Option<u64>,
    },
    /// A part of a snapshot for a server whose log ends before the leader's begins.
    SnapshotChunk(SnapshotChunk),
    /// How much of a snapshot has arrived; also the answer to a chunk that did not fit, so that a transfer goes on where
    /// it broke off.
    SnapshotAck(SnapshotAck),
    /// What only the leader knows or may do, in words of the agents' own.
    Ask {
        /// Chosen by the asker.
        token: u64,
        /// At most [`ASK_LENGTH_MAX`] bytes.
        question: Bytes,
    },
    /// The answer to it.
    Told {
        /// The question's.
        token: u64,
        /// At most [`ASK_LENGTH_MAX`] bytes; `None` when the asked server does not lead.
        answer: Option<Bytes>,
    },
}

/// A write on its way to the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// Chosen by the sender; never used twice while it runs.
    pub token: u64,
    /// An archived command, as it will lie in the log; at an address that suits [`crate::entry::BODY_ALIGNMENT`].
    pub body: Bytes,
}

/// What became of one [`Forwarded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardAnswer {
    /// The write's.
    pub token: u64,
    /// What became of it.
    pub outcome: ForwardOutcome,
}

/// See [`ForwardAnswer`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ForwardOutcome {
    /// It is this entry of the leader's log. The asker sees in its own log whether it is committed, and what it did when
    /// it is applied; so the leader need not remember who asked.
    Accepted {
        /// The entry's index.
        index: u64,
        /// The entry's term.
        term: u64,
    },
    /// It was not taken, as the asked server does not lead: it may be sent to another one.
    NotLeader,
    /// It was not taken, as too many wait.
    TooBusy,
    /// It was not taken, as the leader's disk is full.
    DiskFull,
}

/// See [`PeerMessage::SnapshotChunk`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotChunk {
    /// Term of the sending leader.
    pub leader_term: u64,
    /// Which snapshot: term and index of the last entry in it.
    pub term: u64,
    /// See `term`.
    pub index: u64,
    /// Length of the whole file, bytes.
    pub total: u64,
    /// Where this part begins in it.
    pub offset: u64,
    /// The part, at most [`SNAPSHOT_CHUNK_MAX`] bytes.
    pub data: Bytes,
}

/// See [`PeerMessage::SnapshotAck`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotAck {
    /// Term of the follower.
    pub follower_term: u64,
    /// Which snapshot.
    pub term: u64,
    /// See `term`.
    pub index: u64,
    /// How many bytes of it have arrived in one piece: where to go on.
    pub received: u64,
    /// Whether it is in use, and the transfer over.
    pub installed: bool,
}
