//! What servers say to each other. `protocol::rpc` puts it into frames.

use super::Position;
use crate::entry::{Entry, Now};

/// A message between two servers of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Would you vote for me? (Thesis, section 9.6.) Changes nothing on either side.
    PreVote(VoteRequest),
    /// The answer to that.
    PreVoteReply(VoteReply),
    /// Vote for me.
    Vote(VoteRequest),
    /// The answer, given after it is durable.
    VoteReply(VoteReply),
    /// A leader's entries, or its sign of life when there are none.
    Append(Append),
    /// The answer to that.
    AppendReply(AppendReply),
    /// A leader asks the receiver to campaign at once (thesis, section 3.10).
    TimeoutNow(TimeoutNow),
}

impl Message {
    /// The term that it speaks of: its sender's, but in a [`Message::PreVote`] the one after it.
    pub fn term(&self) -> u64 {
        match self {
            Message::PreVote(request) | Message::Vote(request) => request.term,
            Message::PreVoteReply(reply) | Message::VoteReply(reply) => reply.term,
            Message::Append(append) => append.term,
            Message::AppendReply(reply) => reply.term,
            Message::TimeoutNow(order) => order.term,
        }
    }
}

/// A request for a vote, or for a promise of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteRequest {
    /// The term in which the candidate would lead.
    pub term: u64,
    /// The last entry of its log.
    pub last: Position,
    /// The leader of the term before asked for this campaign: its [`Append::epoch`] at the time. Receivers vote although
    /// they hear that leader, unless they know that it has changed its mind.
    pub transfer: Option<u64>,
}

/// The answer to a [`VoteRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VoteReply {
    /// The answering server's term.
    pub term: u64,
    /// The term that was asked for.
    pub asked: u64,
    /// Whether the vote, or the promise, is given.
    pub granted: bool,
}

/// A leader's entries; without entries, a sign of life, which is answered without waiting for a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// The leader's term.
    pub term: u64,
    /// The entry before the first.
    pub prev: Position,
    /// Entries with consecutive indexes after `prev`.
    pub entries: Vec<Entry>,
    /// All up to here is committed.
    pub commit: u64,
    /// The latest round of signs of life that the leader had begun when it sent this.
    pub round: u64,
    /// When that round began, on the leader's clock. The receiver gives both back and makes nothing of them.
    pub round_began: Now,
    /// How many transfers of leadership this leader has given up in this term.
    pub epoch: u64,
    /// Whether the receiver is to answer even when there are no entries. Entries are always answered.
    pub answer: bool,
    /// The receiver has said that it is damaged: how it will be whole again.
    pub heal: Option<Heal>,
}

/// When a damaged server is whole again: nothing that it ever acknowledged lies behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heal {
    /// Its [`AppendReply::damage`].
    pub damage: u64,
    /// It must hold durably what its leader has, up to here: the leader's last entry when it heard of the damage.
    pub through: u64,
}

/// The answer to an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendReply {
    /// The answering server's term.
    pub term: u64,
    /// The newest round that it has heard of in this term; 0 while it could forget, in a crash, that it has answered.
    pub round: u64,
    /// When that round began, on the leader's clock.
    pub round_began: Now,
    /// What has become of the entries.
    pub outcome: Outcome,
    /// The answering server takes no entries now: its disk is full, or its state machine is behind.
    pub full: bool,
    /// It has lost entries to damage: a number, not 0, that it has drawn at its start.
    pub damage: Option<u64>,
}

/// What has become of an [`Append`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The logs agree up to `received`, and up to `durable` the agreement survives a crash.
    Accepted {
        /// Last index that agrees with the leader's log and is durable.
        durable: u64,
        /// Last index that agrees with the leader's log.
        received: u64,
    },
    /// The logs differ at `prev`, or the term is over.
    Rejected {
        /// Index of the refused message's `prev`.
        prev: u64,
        /// The last place at or before it where the logs may agree.
        hint: Position,
    },
}

/// A leader's order to campaign at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeoutNow {
    /// The leader's term.
    pub term: u64,
    /// Its [`Append::epoch`].
    pub epoch: u64,
}
