//! Reads that must be fresh (thesis, section 6.4): on the leader by its lease or by a round that a majority acknowledges, on others by
//! asking the leader for the index to wait for. All reads that come in one step share a question.

use std::collections::BTreeMap;

use muster_protocol::entry::{Now, ServerId};
use muster_protocol::raft::{self, Role};
use muster_protocol::rpc::PeerMessage;

use super::limits::{READ_RETRY, RETRY_PAUSE};
use super::{Effect, Replica};
use crate::consensus::{Consistency, ProposeError};

/// All reads that wait.
#[derive(Default)]
pub(super) struct Reads {
    /// Not asked yet: default ones, consistent ones.
    fresh: [Vec<Waiter>; 2],
    /// Asked, by the number of the question.
    asked: BTreeMap<u64, Question>,
    /// Waiting for an index to be applied.
    known: BTreeMap<u64, Vec<Waiter>>,
    /// Questions of other servers that Raft works at: who, and the number it has there.
    for_others: BTreeMap<u64, (ServerId, u64)>,
    /// The last number of a question.
    last: u64,
    retry_at: Now,
}

impl Reads {
    /// Nobody waits; the numbers of questions begin behind this one.
    pub fn new(last: u64) -> Reads {
        Reads { last, ..Reads::default() }
    }
}

#[derive(Clone, Copy)]
struct Waiter {
    token: u64,
    since: Now,
}

struct Question {
    waiters: Vec<Waiter>,
    kind: usize,
    at: Now,
    /// `None`: our own Raft.
    leader: Option<ServerId>,
}

const DEFAULT: usize = 0;
const CONSISTENT: usize = 1;

impl Reads {
    pub fn hold(&mut self, token: u64, consistency: Consistency, now: Now) {
        let kind = match consistency {
            Consistency::Default => DEFAULT,
            Consistency::Consistent => CONSISTENT,
        };
        self.fresh[kind].push(Waiter { token, since: now });
    }

    pub fn any_wait(&self) -> bool {
        self.any_fresh() || !self.asked.is_empty() || !self.known.is_empty()
    }

    /// The lowest index that reads wait for, of those whose index is known.
    pub fn next_index(&self) -> Option<u64> {
        self.known.first_key_value().map(|(index, _)| *index)
    }

    /// When what is not asked yet is asked, if it is held back now.
    pub fn retry_due(&self, now: Now) -> Option<Now> {
        (self.any_fresh() && self.retry_at > now).then_some(self.retry_at)
    }

    /// Whom we asked may know nothing any more, and whoever leads now is worth asking at once.
    pub fn leader_changed(&mut self) {
        self.retry_at = Now::ZERO;
        for question in std::mem::take(&mut self.asked).into_values() {
            self.fresh[question.kind].extend(question.waiters);
        }
    }

    fn any_fresh(&self) -> bool {
        self.fresh.iter().any(|waiters| !waiters.is_empty())
    }

    fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    fn wait_for(&mut self, index: u64, waiters: Vec<Waiter>) {
        self.known.entry(index).or_default().extend(waiters);
    }

    /// The question was not answered: its reads are asked for again after a pause.
    fn again(&mut self, question: Question, now: Now) {
        self.fresh[question.kind].extend(question.waiters);
        self.retry_at = now + RETRY_PAUSE;
    }
}

impl Replica {
    /// Asks for all reads that have come.
    pub(super) fn ask(&mut self, out: &mut Vec<Effect>) {
        if !self.reads.any_fresh() || self.reads.retry_at > self.now {
            return;
        }
        if self.raft.role() == Role::Leader {
            self.ask_here(out);
            return;
        }
        let Some(leader) = self.raft.leader().filter(|leader| *leader != self.id()) else { return };
        for kind in [DEFAULT, CONSISTENT] {
            let waiters = std::mem::take(&mut self.reads.fresh[kind]);
            if waiters.is_empty() {
                continue;
            }
            let token = self.reads.number();
            let question = Question { waiters, kind, at: self.now, leader: Some(leader) };
            self.reads.asked.insert(token, question);
            let consistent = kind == CONSISTENT;
            self.sends.push((leader, PeerMessage::ReadIndex { token, consistent }));
        }
    }

    fn ask_here(&mut self, out: &mut Vec<Effect>) {
        if self.has_lease() {
            let waiters = std::mem::take(&mut self.reads.fresh[DEFAULT]);
            if !waiters.is_empty() {
                self.reads.wait_for(self.raft.commit_index(), waiters);
            }
        }
        for kind in [DEFAULT, CONSISTENT] {
            let waiters = std::mem::take(&mut self.reads.fresh[kind]);
            if !waiters.is_empty() {
                let token = self.reads.number();
                self.reads.asked.insert(token, Question { waiters, kind, at: self.now, leader: None });
                self.raft_inputs.push_back(raft::Input::ReadIndex { token });
            }
        }
        self.run_raft(out);
    }

    /// The lease as Raft has it: for whoever then waits until all that is committed is applied.
    fn has_lease(&self) -> bool {
        self.raft.lease_until().is_some_and(|until| until > self.now)
    }

    /// A question of another server.
    pub(super) fn read_for(&mut self, from: ServerId, token: u64, consistent: bool) {
        if self.raft.role() != Role::Leader {
            self.sends.push((from, PeerMessage::ReadIndexAnswer { token, index: None }));
        } else if !consistent && self.has_lease() {
            let index = Some(self.raft.commit_index());
            self.sends.push((from, PeerMessage::ReadIndexAnswer { token, index }));
        } else {
            let number = self.reads.number();
            self.reads.for_others.insert(number, (from, token));
            self.raft_inputs.push_back(raft::Input::ReadIndex { token: number });
        }
    }

    /// What Raft says to a question: the index to wait for, or that this server cannot know.
    pub(super) fn read_ready(&mut self, number: u64, index: Option<u64>) {
        if let Some((server, token)) = self.reads.for_others.remove(&number) {
            self.sends.push((server, PeerMessage::ReadIndexAnswer { token, index }));
        } else if let Some(question) = self.reads.asked.remove(&number) {
            match index {
                Some(index) => self.reads.wait_for(index, question.waiters),
                None => self.reads.again(question, self.now),
            }
        }
    }

    /// What the leader says to a question of ours.
    pub(super) fn read_answered(&mut self, from: ServerId, token: u64, index: Option<u64>) {
        if self.reads.asked.get(&token).is_some_and(|question| question.leader == Some(from)) {
            self.read_ready(token, index);
        }
    }

    /// Lets those go whose index is applied.
    pub(super) fn pass_reads(&mut self, out: &mut Vec<Effect>) {
        let mut tokens = Vec::new();
        while let Some(first) = self.reads.known.first_entry() {
            if *first.key() > self.applied.0 {
                break;
            }
            tokens.extend(first.remove().into_iter().map(|waiter| waiter.token));
        }
        if !tokens.is_empty() {
            out.push(Effect::Barriers { tokens, result: Ok(()) });
        }
    }

    /// Asks again what was lost on the way, and ends what has waited for too long.
    pub(super) fn expire_reads(&mut self, out: &mut Vec<Effect>) {
        let (now, hold) = (self.now, self.options.hold_timeout);
        let lost =
            |_: &u64, question: &mut Question| question.leader.is_some() && question.at + READ_RETRY <= now;
        let lost: Vec<_> = self.reads.asked.extract_if(.., lost).collect();
        for (_, question) in lost {
            self.reads.again(question, now);
        }
        let mut tokens = Vec::new();
        let mut end = |waiters: &mut Vec<Waiter>| {
            waiters.retain(|waiter| {
                let over = waiter.since + hold <= now;
                if over {
                    tokens.push(waiter.token);
                }
                !over
            });
            !waiters.is_empty()
        };
        for waiters in &mut self.reads.fresh {
            end(waiters);
        }
        self.reads.asked.retain(|_, question| end(&mut question.waiters));
        self.reads.known.retain(|_, waiters| end(waiters));
        if !tokens.is_empty() {
            out.push(Effect::Barriers { tokens, result: Err(ProposeError::NoLeader) });
        }
    }

    /// The link to a server broke.
    pub(super) fn peer_lost(&mut self, peer: ServerId, out: &mut Vec<Effect>) {
        self.forwards_lost(peer, out);
        self.reads.for_others.retain(|_, (server, _)| *server != peer);
        let (now, asked) = (self.now, &mut self.reads.asked);
        let lost: Vec<_> =
            asked.extract_if(.., |_, question| question.leader == Some(peer)).map(|(_, lost)| lost).collect();
        lost.into_iter().for_each(|question| self.reads.again(question, now));
        self.senders.peer_lost(peer, now);
        self.raft_inputs.push_back(raft::Input::Unreachable { to: peer });
    }
}
