//! What goes into a [`Raft`](super::Raft) and what comes out of it.

use std::time::Duration;

use bytes::Bytes;

use super::{Append, Message};
use crate::entry::{Configuration, Entry, EntryKind, Now, Server, ServerId};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Input {
    /// The time that [`Raft::next_deadline`](super::Raft::next_deadline) named has come. At other times it does no harm.
    Tick,
    /// A message has arrived.
    Message {
        /// Its sender.
        from: ServerId,
        /// What it says.
        message: Message,
    },
    /// Put these into the log, in this order, all or none. On the leader an [`Effect::Append`] names their indexes; else
    /// [`Effect::Refused`] gives them back.
    Propose {
        /// Bodies without a place.
        drafts: Vec<Draft>,
    },
    /// The log is durable up to this entry. Never said of an entry that an append which is still under way replaces, even
    /// when the one on disk has the same term.
    LogDurable {
        /// Index of the entry.
        index: u64,
        /// Its term.
        term: u64,
    },
    /// An [`Effect::SaveVote`] is durable.
    VoteSaved {
        /// As in the effect.
        term: u64,
        /// As in the effect.
        vote: Option<ServerId>,
    },
    /// The first configuration of a new cluster, the same on all its servers. [Refused](Effect::BootstrapRefused) unless this
    /// server is blank.
    Bootstrap {
        /// Its servers.
        configuration: Configuration,
    },
    /// Change the servers of the cluster. On the leader an [`Effect::Append`] names the index; else [`Effect::ChangeRefused`].
    ChangeConfiguration(Change),
    /// Hand leadership over: to this voter, or to the one that is best prepared. Ends in [`Effect::TransferDone`].
    Transfer {
        /// The heir.
        to: Option<ServerId>,
    },
    /// At which index is a read linearizable that began before now? Ends in [`Effect::ReadReady`] or [`Effect::ReadFailed`].
    ReadIndex {
        /// Chosen by the caller, who may also ask on behalf of a follower.
        token: u64,
    },
    /// A snapshot is durable, and the log no longer holds what is before an index.
    SnapshotTaken {
        /// Index of the last entry in the snapshot.
        index: u64,
        /// Index of the first entry that the log keeps; at most `index + 1`.
        first_kept: u64,
    },
    /// A snapshot that the leader sent is durable and verified. Answered by [`Effect::SnapshotAccepted`] or [`Effect::SnapshotIgnored`].
    SnapshotInstalled {
        /// Index of the last entry in it.
        index: u64,
        /// That entry's term.
        term: u64,
        /// Index of its configuration's entry.
        configuration_index: u64,
        /// The configuration at that index.
        configuration: Configuration,
    },
    /// What [`Effect::SendSnapshot`] asked for has ended.
    SnapshotSent {
        /// The receiver.
        to: ServerId,
        /// Index of the last entry in the snapshot that it holds now; `None`: the sending failed, try again later.
        index: Option<u64>,
    },
    /// The link to a server broke: what was on its way there may be lost.
    Unreachable {
        /// The server.
        to: ServerId,
    },
    /// The oldest unfinished request to the disk has taken so long; to be said again with every [`Input::Tick`] while it lasts. Raft
    /// watches what it has asked for itself; this is for what it does not see.
    DiskPending {
        /// Age of that request.
        age: Duration,
    },
    /// The disk has no room for more entries, or has room again.
    DiskFull(bool),
    /// What is committed waits in too many bytes to be applied, or has become less: a follower takes no entries meanwhile, so that
    /// a slow state machine is not buried under them. Only what is committed may count, or nothing would ever be.
    Behind(bool),
}

/// The body of an entry that has no place yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What the body is.
    pub kind: EntryKind,
    /// Version of its format.
    pub version: u8,
    /// The bytes.
    pub body: Bytes,
}

/// A change of one server (thesis, section 4.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new server that does not vote: a learner or a non-voter.
    Add(Server),
    /// A server that is there gets this name and address; its suffrage stays.
    Update(Server),
    /// A learner or non-voter becomes a voter.
    Promote(ServerId),
    /// A voter becomes a non-voter.
    Demote(ServerId),
    /// A server leaves for good.
    Remove(ServerId),
}

/// What the driver is to do, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Make term and vote durable, then say [`Input::VoteSaved`]. What depends on it is held back until then.
    SaveVote {
        /// The term.
        term: u64,
        /// The vote in it.
        vote: Option<ServerId>,
    },
    /// Entries from `from` on are gone: whoever proposed them has lost them. An [`Effect::Append`] follows.
    Truncated {
        /// Index of the first that is gone.
        from: u64,
    },
    /// Put these into the log, then say [`Input::LogDurable`]. The first may replace an entry with the same index, and with it all behind.
    Append {
        /// Entries with consecutive indexes.
        entries: Vec<Entry>,
    },
    /// Send a message. It may be lost.
    Send {
        /// The receiver.
        to: ServerId,
        /// What to say.
        message: Message,
    },
    /// Send entries: fill `append.entries` with those from `append.prev.index + 1` to `last`, from memory or from the log, and
    /// send it as [`Message::Append`]. Fewer may be sent. It must not be sent when this server no longer leads in `append.term`.
    SendEntries {
        /// The receiver.
        to: ServerId,
        /// The message without its entries.
        append: Append,
        /// Index of the last entry.
        last: u64,
    },
    /// Send the newest snapshot, then say [`Input::SnapshotSent`]. Stop when this server no longer leads in `term`.
    SendSnapshot {
        /// The receiver.
        to: ServerId,
        /// The leader's term.
        term: u64,
    },
    /// The snapshot holds: the state machine is to be replaced by it.
    SnapshotAccepted {
        /// Index of the last entry in it.
        index: u64,
        /// Its term.
        term: u64,
        /// Whether the log goes on behind the snapshot; else all of it is given up and the next entry is `index + 1`.
        keep_log: bool,
    },
    /// The snapshot is older than what is committed here.
    SnapshotIgnored {
        /// Index of the last entry in it.
        index: u64,
    },
    /// All up to here is committed: apply it.
    Committed {
        /// Index of the last committed entry.
        index: u64,
    },
    /// Role, term or known leader have changed.
    Role {
        /// What this server is.
        role: Role,
        /// Its term.
        term: u64,
        /// The leader of that term, when known.
        leader: Option<ServerId>,
    },
    /// This server leads no more. What it proposed and what is not committed may or may not be committed by others.
    SteppedDown {
        /// The reason.
        why: StepDown,
    },
    /// The newest configuration in the log, as soon as it is appended, and again when a truncation brings an older one back.
    Configuration {
        /// Index of its entry.
        index: u64,
        /// The servers.
        configuration: Configuration,
    },
    /// The damage is healed: forget `repair_until` for good.
    Repaired,
    /// A read may be answered once all up to `index` is applied.
    ReadReady {
        /// As in [`Input::ReadIndex`].
        token: u64,
        /// What must be applied.
        index: u64,
    },
    /// A read cannot be answered by this server.
    ReadFailed {
        /// As in [`Input::ReadIndex`].
        token: u64,
        /// The reason.
        why: Refusal,
    },
    /// Drafts that were not put into the log.
    Refused {
        /// All of one [`Input::Propose`].
        drafts: Vec<Draft>,
        /// The reason.
        why: Refusal,
    },
    /// A first configuration that was not taken.
    BootstrapRefused {
        /// The reason.
        why: Refusal,
    },
    /// A change of servers that was not begun.
    ChangeRefused {
        /// As it was asked.
        change: Change,
        /// The reason.
        why: Refusal,
    },
    /// This program cannot go on: it has met what a newer one has written. Nothing was changed.
    Fatal {
        /// What failed, on what, and what to do.
        why: String,
    },
    /// A leader's message was not heard: what it says cannot be if all have kept their promises.
    Contradicted {
        /// Who says so.
        from: ServerId,
        /// What contradicts what.
        why: String,
    },
    /// The end of a transfer.
    TransferDone {
        /// Whether this server has handed over.
        result: Result<(), Refusal>,
    },
}

/// What a server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether it would be elected.
    PreCandidate,
    /// Asks for votes.
    Candidate,
    /// Leads.
    Leader,
}

/// Why a server leads no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepDown {
    /// Another server has a newer term.
    NewerTerm,
    /// No quorum was heard for an election timeout.
    QuorumLost,
    /// Its disk does not finish its writes.
    DiskStalled,
    /// The committed configuration does not have it as a voter.
    Removed,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another server leads, or none.
    NotLeader {
        /// The leader, when known.
        leader: Option<ServerId>,
    },
    /// Leadership is being handed over.
    Transferring,
    /// The disk is full.
    DiskFull,
    /// A limit of what may wait is reached.
    Overloaded,
    /// A change of servers is not committed yet, or no entry of this term is: ask again later.
    ChangePending,
    /// The change, or the transfer, makes no sense; says why.
    Invalid(&'static str),
    /// The heir did not take over in time.
    TimedOut,
}

/// How a leader sees another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// All up to here is durable there.
    pub durable: u64,
    /// When it last answered.
    pub contact: Now,
    /// How entries are sent to it.
    pub state: PeerState,
    /// It has said that it takes no entries now: its disk is full, or its state machine is behind.
    pub full: bool,
}

/// How a leader sends to another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Where the logs agree is being found out; one message at a time.
    Probe,
    /// Entries go out as they come.
    Replicate,
    /// It needs a snapshot, which is on its way.
    Snapshot,
}
