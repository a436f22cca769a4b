//! Consensus: Raft as in Diego Ongaro's thesis (*Consensus: Bridging Theory and Practice*, 2014), sans-IO.
//!
//! A [`Raft`] decides about terms and indexes and passes bodies through. Its driver (`consensus::replica`, the simulator)
//! feeds it [`Input`]s with the time and carries out the [`Effect`]s in their order. It never awaits, never reads a clock,
//! never iterates in a random order; its randomness comes from a seed. What it promises to others depends only on
//! what [`Input::VoteSaved`] and [`Input::LogDurable`] have confirmed.

mod face;
mod message;
mod options;
mod view;

pub use face::{Change, Draft, Effect, Input, Refusal, Role, StepDown};
pub use message::{Append, AppendReply, Message, Outcome, TimeoutNow, VoteReply, VoteRequest};
pub use options::{Limits, Options, Restored};
pub use view::{LogView, Position};

use crate::entry::{Configuration, Now, ServerId};

/// One server's part in the consensus.
pub struct Raft {
    options: Options,
    term: u64,
    role: Role,
    leader: Option<ServerId>,
    log: LogView,
    commit: u64,
    configurations: Vec<(u64, Configuration)>,
    election_deadline: Now,
}

/// How a leader sees another server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// All up to here is durable there.
    pub durable: u64,
    /// When it last answered.
    pub contact: Now,
    /// Whether it has its log from a snapshot just now, is being asked where its log agrees, or receives entries.
    pub state: PeerState,
    /// It has said that its disk is full.
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

impl Raft {
    /// A server that starts now.
    pub fn new(now: Now, options: Options, restored: Restored) -> Raft {
        Raft {
            term: restored.term,
            role: Role::Follower,
            leader: None,
            log: restored.log,
            commit: restored.committed,
            configurations: restored.configurations,
            election_deadline: now + options.election_timeout,
            options,
        }
    }

    /// Takes one input and says what is to be done.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        let _ = (now, input, out);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Now> {
        Some(self.election_deadline)
    }

    /// What this server is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Its term.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// The leader of its term, when known; itself when it leads.
    pub fn leader(&self) -> Option<ServerId> {
        self.leader
    }

    /// All up to here is committed.
    pub fn commit_index(&self) -> u64 {
        self.commit
    }

    /// The last entry of the log, durable or not.
    pub fn last(&self) -> Position {
        self.log.last()
    }

    /// The newest configuration and its index, committed or not; `None` on a blank server.
    pub fn configuration(&self) -> Option<&(u64, Configuration)> {
        self.configurations.last()
    }

    /// The configuration that was in force at an index not before the last snapshot: what a snapshot there must name.
    pub fn configuration_at(&self, index: u64) -> Option<&(u64, Configuration)> {
        self.configurations.iter().rev().find(|(at, _)| *at <= index)
    }

    /// Until when this leader may answer reads at [`Raft::commit_index`] without asking others. `None`: not at all now;
    /// `Now::MAX`: it is the only voter.
    pub fn lease_until(&self) -> Option<Now> {
        None
    }

    /// When a follower last heard its leader; on the leader, when a quorum last answered it.
    pub fn last_contact(&self) -> Option<Now> {
        None
    }

    /// The other servers as a leader sees them, in order; nothing on others.
    pub fn peers(&self) -> impl Iterator<Item = (ServerId, Peer)> + '_ {
        std::iter::empty()
    }

    /// Whether this server waits to be healed by a leader: up to which index.
    pub fn repairing_until(&self) -> Option<u64> {
        None
    }

    /// The options that it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }
}
