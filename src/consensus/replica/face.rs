//! What goes into a [`Replica`](super::Replica) and what comes out of it.

use std::time::Duration;

use bytes::Bytes;
use muster_protocol::entry::{Configuration, ServerId};
use muster_protocol::log::{self, Recovered, SnapshotMeta};
use muster_protocol::raft;
use muster_protocol::rpc::PeerMessage;

use super::limits::BATCH_MAX;
use crate::consensus::{AdminError, AdminOp, Consistency, ProposeError, Standing};
use crate::store::command::Applied;
use crate::store::{Section, State, Touched};

/// In the warning about a server whose log cannot be what it says: where nobody lies, it means an error in this program.
pub const CONTRADICTS: &str = "contradicts what is committed here";

/// Timing and limits of one server.
#[derive(Clone, Debug)]
pub struct Options {
    /// Raft's own.
    pub raft: raft::Options,
    /// How long a write or a read waits for a leader: Consul's `rpc_hold_timeout`.
    pub hold_timeout: Duration,
    /// Entries since the last snapshot from which on another may be taken: Consul's `raft_snapshot_threshold`.
    pub snapshot_threshold: u64,
    /// How often it is looked whether there are as many: Consul's `raft_snapshot_interval`. Nothing: always.
    pub snapshot_interval: Duration,
    /// Entries kept before a snapshot, for followers that are a little behind: Consul's `raft_trailing_logs`.
    pub trailing_logs: u64,
    /// Entries applied before their state is published.
    pub batch_max: usize,
}

impl Options {
    /// Consul's defaults around Raft's timing; snapshots are taken as soon as there are entries for one.
    pub fn new(raft: raft::Options) -> Options {
        Options {
            raft,
            hold_timeout: Duration::from_secs(7),
            snapshot_threshold: 16_384,
            snapshot_interval: Duration::ZERO,
            trailing_logs: 10_240,
            batch_max: BATCH_MAX,
        }
    }
}

/// What a server starts with.
#[derive(Debug)]
pub struct Start {
    /// What its disk holds.
    pub recovered: Recovered,
    /// The state in the recovered snapshot; empty if there is none.
    pub state: State,
    /// Servers that an operator puts in the place of those in the log, to revive a cluster whose majority is lost.
    pub forced: Option<Configuration>,
}

/// Something that happened.
#[derive(Debug)]
pub enum Input {
    /// The time that [`Replica::next_deadline`](super::Replica::next_deadline) named has come. At other times it does no harm.
    Tick,
    /// A message of another server.
    Peer {
        /// Who.
        from: ServerId,
        /// What it says.
        message: PeerMessage,
    },
    /// The link to a server broke: what it was to answer, it will not.
    PeerLost(ServerId),
    /// A message that could not even be handed to a link.
    Unsent {
        /// To whom it was to go.
        to: ServerId,
        /// The message.
        message: PeerMessage,
    },
    /// A write; ends in [`Effect::Answers`].
    Propose {
        /// Chosen by the driver; never that of another write under way.
        token: u64,
        /// A valid archive of a command.
        body: Bytes,
    },
    /// A read wants to know whether the published state is fresh enough; ends in [`Effect::Barriers`].
    Barrier {
        /// Chosen by the driver; never that of another barrier under way.
        token: u64,
        /// How fresh.
        consistency: Consistency,
    },
    /// A request of an operator; ends in [`Effect::AdminDone`].
    Admin {
        /// Chosen by the driver; never that of another request under way.
        token: u64,
        /// What.
        op: AdminOp,
    },
    /// The disk has obeyed a request, or not.
    Disk(log::Completion),
    /// The answer to [`Effect::NextSection`]: a section, or `None` after the last one.
    SnapshotSection {
        /// Of which snapshot.
        id: u64,
        /// The section.
        section: Option<Section>,
    },
    /// The sections of a snapshot cannot be made.
    SnapshotFailed {
        /// Of which snapshot.
        id: u64,
    },
    /// The answer to [`Effect::LoadSnapshot`].
    SnapshotLoaded {
        /// As in the effect.
        term: u64,
        /// As in the effect.
        index: u64,
        /// What the file holds, every byte of it checked; or why it cannot be used.
        loaded: Result<Box<(SnapshotMeta, State)>, String>,
    },
}

/// What the driver is to do, in this order.
#[derive(Debug)]
pub enum Effect {
    /// Hand a message to the link; it may be lost.
    Send {
        /// To whom.
        to: ServerId,
        /// What to say.
        message: PeerMessage,
    },
    /// Hand a request to the disk, which obeys in order.
    Disk(log::Request),
    /// Put this state in the place of the published one, and tell every edge what has changed; before any answer that
    /// comes later.
    Publish(Box<Published>),
    /// Writes are done, or refused.
    Answers(Vec<(u64, Outcome)>),
    /// Reads may look at the published state; or not.
    Barriers {
        /// Which.
        tokens: Vec<u64>,
        /// Whether.
        result: Result<(), ProposeError>,
    },
    /// A request of an operator is done, or not.
    AdminDone {
        /// Which.
        token: u64,
        /// The outcome.
        result: Result<(), AdminError>,
    },
    /// What is known about leadership and the cluster's servers has changed.
    Standing(Box<Standing>),
    /// Get the sections of this state ready, off this thread; they are asked for one by one.
    TakeSnapshot {
        /// Names the snapshot.
        id: u64,
        /// The state.
        state: Box<State>,
    },
    /// Give the next section of a snapshot as [`Input::SnapshotSection`].
    NextSection {
        /// Of which.
        id: u64,
    },
    /// No more sections of this snapshot are needed.
    DropSnapshot {
        /// Of which.
        id: u64,
    },
    /// Read the draft of a snapshot that came from the leader, off this thread, check every byte and give its state as
    /// [`Input::SnapshotLoaded`]. All of the file is written, if not yet synced.
    LoadSnapshot {
        /// Term of the last entry in it.
        term: u64,
        /// Index of that entry.
        index: u64,
    },
    /// Say so in the log.
    Log {
        /// Whether an operator should look at it.
        warning: bool,
        /// What.
        text: String,
    },
    /// This server cannot go on. The process must end; a later start may repair it.
    Fatal(String),
}

/// What became of a write.
pub type Outcome = Result<Done, ProposeError>;

/// A write that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The state's index, as clients see it, that it was applied at.
    pub index: u64,
    /// What it did.
    pub applied: Applied,
}

/// What a batch of entries has made of the state.
#[derive(Debug)]
pub struct Published {
    /// The state.
    pub state: State,
    /// Index in the log of the newest entry in it.
    pub applied: u64,
    /// What it touched.
    pub touched: Touched,
    /// How many writes of each kind were applied, for the driver's metrics.
    pub kinds: Kinds,
}

/// Numbers of writes by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Writes to keys.
    pub kv: u64,
    /// Registrations.
    pub register: u64,
    /// Deregistrations.
    pub deregister: u64,
    /// Writes to autopilot's configuration.
    pub autopilot: u64,
    /// Steps of restores.
    pub restore: u64,
    /// Writes of coordinates.
    pub coordinates: u64,
    /// Writes to sessions.
    pub sessions: u64,
    /// Transactions.
    pub txn: u64,
}

/// Numbers of the log, which move with every batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Indexes {
    /// Index of the newest entry of the log.
    pub last: u64,
    /// Its term.
    pub last_term: u64,
    /// Index of the newest entry that a majority holds.
    pub commit: u64,
    /// Index of the newest entry in the state, which is given out by and by.
    pub applied: u64,
}
