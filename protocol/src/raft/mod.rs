//! Consensus: Raft as in Diego Ongaro's thesis (*Consensus: Bridging Theory and Practice*, 2014), sans-IO.
//!
//! A [`Raft`] decides about terms and indexes and passes bodies through. Its driver (`consensus::replica`, the simulator)
//! feeds it [`Input`]s with the time, which never goes back, and carries out the [`Effect`]s in their order. It never awaits, never reads a clock,
//! never iterates in a random order; its randomness comes from a seed. What it promises to others depends only on
//! what [`Input::VoteSaved`] and [`Input::LogDurable`] have confirmed.
//!
//! What it guarantees: at most one leader in a term; what is committed stays so, at the same index everywhere; a
//! [lease](Raft::lease_until) and [`Effect::ReadReady`] never name an index older than what was acknowledged before. A broken
//! guarantee, which only an error in a program can cause, is a panic in release builds too.
//!
//! How it differs from the thesis: leaders always know that a quorum hears them (check-quorum), or step down; a vote
//! request that a transfer caused names the transfer, so that one the leader has given up cannot break its lease;
//! a server refuses votes for an election timeout after its start, since it may have forgotten a leader that it had
//! answered just before; signs of life are answered before the disk has finished, entries after.

mod disk;
mod election;
mod face;
mod follower;
mod leader;
mod membership;
mod message;
mod options;
mod progress;
mod reads;
mod snapshot;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

pub use face::{Change, Draft, Effect, Input, Peer, PeerState, Refusal, Role, StepDown};
pub use message::{Append, AppendReply, Heal, Message, Outcome, TimeoutNow, VoteReply, VoteRequest};
pub use options::{Limits, Options, Restored};
pub use view::{LogView, Position};

use crate::entry::{Configuration, Now, ServerId};
use crate::random::Random;
use disk::Disk;
use election::{Poll, Promise};
use follower::Following;
use leader::Leading;
use membership::Configurations;

/// A message whose term is so far ahead is no server's: elections cannot have counted so far, and an operator's recovery leaps by
/// much less. Taken, it could leave no term for any later election.
const TERM_LEAP_MAX: u64 = 1 << 40;

/// One server's part in the consensus.
pub struct Raft {
    options: Options,
    /// The time of the newest input.
    now: Now,
    random: Random,

    term: u64,
    /// Whom this server votes for in `term`.
    vote: Option<ServerId>,
    /// Term and vote that are durable.
    saved: (u64, Option<ServerId>),
    /// Term and vote that were last asked to be made durable.
    save_asked: (u64, Option<ServerId>),
    log: LogView,
    /// The log is durable up to here.
    durable: u64,
    commit: u64,
    configurations: Configurations,
    /// See [`Restored::repair_until`].
    repair_until: u64,
    /// The newest term in which this server may have voted before it was damaged.
    repair_after_term: u64,
    /// Names this life to the leader that is to heal it.
    damage: u64,
    disk: Disk,
    /// See [`Input::Behind`].
    behind: bool,

    role: Role,
    leader: Option<ServerId>,
    /// When a leader was last heard.
    heard: Option<Now>,
    /// No votes before this: a leader may rely on what this server has answered before its start.
    silent_until: Now,
    election_deadline: Now,
    /// Tries to be elected since a leader was heard.
    tried: u32,
    promised: Option<Promise>,
    following: Following,
    poll: Poll,
    /// While the role is [`Role::Leader`].
    leading: Option<Box<Leading>>,
    /// Role, term and leader as last told.
    told: (Role, u64, Option<ServerId>),
}

impl Raft {
    /// A server that starts now. Its deadline tells when it wants its first [`Input::Tick`]: a lone voter at once.
    ///
    /// # Panics
    /// What was restored contradicts itself.
    pub fn new(now: Now, options: Options, restored: Restored) -> Raft {
        let log = restored.log;
        assert!(
            (log.base().index..=log.last().index).contains(&restored.committed),
            "a snapshot up to {} with a log from {:?} to {:?}",
            restored.committed,
            log.base(),
            log.last()
        );
        let mut random = Random::new(options.seed);
        // A log of a newer term than the saved one was written by a server that had not yet promised anything in it.
        let term = restored.term.max(log.last().term);
        let vote = restored.vote.filter(|_| term == restored.term);
        let mut raft = Raft {
            now,
            term,
            vote,
            saved: (restored.term, restored.vote),
            save_asked: (restored.term, restored.vote),
            durable: log.last().index,
            commit: restored.committed,
            configurations: Configurations::new(restored.configurations),
            repair_until: restored.repair_until,
            repair_after_term: term,
            damage: random.draw() | 1,
            disk: Disk::default(),
            behind: false,
            role: Role::Follower,
            leader: None,
            heard: None,
            silent_until: if term == 0 { now } else { now + options.election_timeout },
            election_deadline: now + random.timeout(options.election_timeout),
            tried: 0,
            promised: None,
            following: Following::new(restored.committed),
            poll: Poll::default(),
            leading: None,
            told: (Role::Follower, term, None),
            random,
            log,
            options,
        };
        // Who was never one of several voters need not mind any other leader's lease.
        if raft.is_lone_voter() && raft.configurations.all_have_voters([raft.options.id]) {
            raft.election_deadline = now;
        }
        raft
    }

    /// Takes one input and says what is to be done.
    pub fn step(&mut self, now: Now, input: Input, out: &mut Vec<Effect>) {
        self.now = self.now.max(now);
        match input {
            Input::Tick => self.on_tick(out),
            Input::Message { from, message } => self.on_message(from, message, out),
            Input::Propose { drafts } => self.on_propose(drafts, out),
            Input::LogDurable { index, term } => self.on_log_durable(Position { term, index }, out),
            Input::VoteSaved { term, vote } => self.on_vote_saved(term, vote, out),
            Input::Bootstrap { configuration } => self.on_bootstrap(configuration, out),
            Input::ChangeConfiguration(change) => self.on_change(change, out),
            Input::Transfer { to } => self.on_transfer(to, out),
            Input::ReadIndex { token } => self.on_read(token, out),
            Input::SnapshotTaken { index, first_kept } => self.on_snapshot_taken(index, first_kept),
            Input::SnapshotInstalled { index, term, configuration_index, configuration } => {
                self.on_snapshot_installed(
                    Position { term, index },
                    (configuration_index, configuration),
                    out,
                );
            }
            Input::SnapshotSent { to, index } => self.on_snapshot_sent(to, index, out),
            Input::Unreachable { to } => self.on_unreachable(to),
            Input::DiskPending { age } => self.on_disk_pending(age, out),
            Input::DiskFull(full) => self.on_disk_full(full, out),
            Input::Behind(behind) => self.behind = behind,
        }
        self.finish(out);
    }

    /// When [`Input::Tick`] is due.
    pub fn next_deadline(&self) -> Option<Now> {
        match &self.leading {
            Some(leading) => Some(self.leader_deadline(leading)),
            None => Some(self.election_deadline),
        }
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

    /// About how many bytes the entries are that are committed and come after an index.
    pub fn committed_bytes_after(&self, index: u64) -> u64 {
        if index < self.commit { self.log.bytes(index, self.commit) } else { 0 }
    }

    /// The newest configuration and its index, committed or not; `None` on a blank server.
    pub fn configuration(&self) -> Option<&(u64, Configuration)> {
        self.configurations.latest()
    }

    /// The configuration that was in force at an index not before the last snapshot: what a snapshot there must name.
    pub fn configuration_at(&self, index: u64) -> Option<&(u64, Configuration)> {
        self.configurations.at(index)
    }

    /// When a follower last heard its leader; on the leader, when a quorum last answered it.
    pub fn last_contact(&self) -> Option<Now> {
        match &self.leading {
            Some(leading) => Some(self.quorum_contact(leading)),
            None => self.heard,
        }
    }

    /// The other servers as a leader sees them, in order; nothing on others.
    pub fn peers(&self) -> impl Iterator<Item = (ServerId, Peer)> + '_ {
        let peers = self.leading.iter().flat_map(|leading| &leading.peers);
        peers.filter(|(_, progress)| progress.leaves.is_none()).map(|(id, progress)| (*id, progress.peer()))
    }

    /// Whether this server waits to be healed by a leader: up to which index.
    pub fn repairing_until(&self) -> Option<u64> {
        Some(self.repair_until).filter(|until| *until > 0)
    }

    /// The options that it was started with.
    pub fn options(&self) -> &Options {
        &self.options
    }

    fn on_tick(&mut self, out: &mut Vec<Effect>) {
        if self.role == Role::Leader {
            self.on_leader_tick(out);
        } else if self.now >= self.election_deadline {
            self.on_election_timeout(out);
        }
    }

    fn on_message(&mut self, from: ServerId, message: Message, out: &mut Vec<Effect>) {
        if from == self.options.id || message.term() > self.term.saturating_add(TERM_LEAP_MAX) {
            return;
        }
        // Asking for a vote does not move anyone's term by itself: it may be refused unheard.
        if !matches!(message, Message::PreVote(_) | Message::Vote(_)) && message.term() > self.term {
            self.become_follower(message.term(), StepDown::NewerTerm, out);
        }
        match message {
            Message::PreVote(request) => self.on_pre_vote(from, request, out),
            Message::Vote(request) => self.on_vote(from, request, out),
            Message::PreVoteReply(reply) => self.on_vote_reply(Role::PreCandidate, from, reply, out),
            Message::VoteReply(reply) => self.on_vote_reply(Role::Candidate, from, reply, out),
            Message::Append(append) => self.on_append(from, append, out),
            Message::AppendReply(reply) => self.on_append_reply(from, reply, out),
            Message::TimeoutNow(order) => self.on_timeout_now(from, order, out),
        }
    }

    /// Follows in this term, which is the own one or a newer one; the leader is not known yet.
    fn become_follower(&mut self, term: u64, why: StepDown, out: &mut Vec<Effect>) {
        assert!(term >= self.term, "terms never decrease: {term} after {}", self.term);
        let led = self.leading.take();
        if term > self.term {
            self.set_term(term, None);
        }
        self.role = Role::Follower;
        self.leader = None;
        if let Some(leading) = led {
            self.arm_election_timer();
            out.push(Effect::SteppedDown { why });
            self.end_leadership(*leading, out);
        }
    }

    fn set_term(&mut self, term: u64, vote: Option<ServerId>) {
        assert!(term > self.term, "a vote is given once in a term: {term} after {}", self.term);
        (self.term, self.vote) = (term, vote);
        self.leader = None;
        self.poll = Poll::default();
        // What is committed agrees with every later leader's log.
        self.following = Following::new(self.commit);
    }

    /// Asks to make term and vote durable when they have changed: before anything else that depends on them.
    fn save_vote(&mut self, out: &mut Vec<Effect>) {
        let current = (self.term, self.vote);
        if self.save_asked != current {
            self.save_asked = current;
            self.disk.vote_pending(self.now);
            out.push(Effect::SaveVote { term: self.term, vote: self.vote });
        }
    }

    /// What every step ends with.
    fn finish(&mut self, out: &mut Vec<Effect>) {
        self.save_vote(out);
        self.tell_commit(out);
        let standing = (self.role, self.term, self.leader);
        if self.told != standing {
            self.told = standing;
            out.push(Effect::Role { role: self.role, term: self.term, leader: self.leader });
        }
        debug_assert_eq!(self.leading.is_some(), self.role == Role::Leader);
        assert!(self.commit <= self.log.last().index, "what is committed is in the log");
        assert!(self.durable <= self.log.last().index, "what is durable is in the log");
    }

    fn set_commit(&mut self, index: u64, out: &mut Vec<Effect>) {
        if index > self.commit {
            assert!(
                index <= self.log.last().index,
                "commits {index} of a log that ends at {:?}",
                self.log.last()
            );
            self.commit = index;
            out.push(Effect::Committed { index });
        }
    }

    /// The configuration's voters and a value of each: the best that a majority reaches. `None` without voters.
    fn reached_by_quorum<T: Ord + Copy>(&self, value: impl Fn(ServerId) -> T) -> Option<T> {
        let (_, configuration) = self.configurations.latest()?;
        let mut values: Vec<T> = configuration.voters().map(value).collect();
        values.sort_unstable_by(|one, other| other.cmp(one));
        values.get(configuration.quorum() - 1).copied()
    }

    fn is_voter(&self) -> bool {
        self.configurations.latest().is_some_and(|(_, configuration)| configuration.is_voter(self.options.id))
    }

    fn is_lone_voter(&self) -> bool {
        let configuration = self.configurations.latest();
        configuration.is_some_and(|(_, configuration)| configuration.voters().eq([self.options.id]))
    }

    /// The voters but this server.
    fn other_voters(&self) -> Vec<ServerId> {
        let configuration = self.configurations.latest();
        let voters = configuration.into_iter().flat_map(|(_, configuration)| configuration.voters());
        voters.filter(|id| *id != self.options.id).collect()
    }
}
