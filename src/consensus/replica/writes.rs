//! Writes on their way: taken in, put into the log by the leader, waiting to be applied. Those that were taken in by a
//! server that does not lead are in [`super::forward`].

use std::collections::VecDeque;

use bytes::Bytes;
use muster_protocol::entry::{EntryKind, Now, ServerId};
use muster_protocol::log::QUEUE_BYTES_MAX;
use muster_protocol::raft::{self, Draft, Refusal, Role};
use muster_protocol::rpc::message::{ForwardAnswer, ForwardOutcome};

use super::forward::Forwards;
use super::limits::RETRY_PAUSE;
use super::{Done, Effect, Outbox, Outcome, Replica};
use crate::consensus::{COMMAND_VERSION, ProposeError};

/// All writes that wait for something.
#[derive(Default)]
pub(super) struct Writes {
    /// Taken in here and not yet put into a log.
    pub held: VecDeque<Held>,
    /// Taken in by others, for this server to put into the log.
    pub forwarded: Vec<(ServerId, u64, Bytes)>,
    /// Of the drafts before Raft: who they are for, in order.
    placing: VecDeque<Origin>,
    /// In the log of this server or of the leader, in order of their indexes.
    waiting: VecDeque<Waiting>,
    /// With the leader, and not yet answered.
    pub forwards: Forwards,
    /// Answers to other servers.
    pub answers: Outbox<ForwardAnswer>,
    /// What is held is not tried again before this.
    retry_at: Now,
}

impl Writes {
    /// Nobody waits; tokens of what is handed to a leader begin behind this one.
    pub fn new(last_token: u64) -> Writes {
        Writes { forwards: Forwards::new(last_token), ..Writes::default() }
    }
}

/// A write taken in here.
pub(super) struct Held {
    pub token: u64,
    pub body: Bytes,
    pub since: Now,
}

/// Who waits for a write.
enum Origin {
    Here { token: u64, since: Now },
    There { server: ServerId, token: u64 },
}

/// A write that will be answered when the entry at its index is applied.
struct Waiting {
    index: u64,
    term: u64,
    token: u64,
    since: Now,
}

impl Writes {
    pub fn hold(&mut self, token: u64, body: Bytes, now: Now) {
        self.held.push_back(Held { token, body, since: now });
    }

    pub fn any_wait(&self) -> bool {
        !self.held.is_empty() || !self.waiting.is_empty() || self.forwards.any_wait()
    }

    /// What is held is worth another try at once.
    pub fn leader_changed(&mut self, now: Now) {
        self.retry_at = now;
    }

    /// When what is held is tried again, if it is held back now.
    pub fn retry_due(&self, now: Now) -> Option<Now> {
        (!self.held.is_empty() && self.retry_at > now).then_some(self.retry_at)
    }

    pub fn retry_after(&mut self, now: Now) {
        self.retry_at = now + RETRY_PAUSE;
    }

    /// Waits for an entry of the leader's log.
    pub fn wait(&mut self, index: u64, term: u64, token: u64, since: Now) {
        let place = match self.waiting.back() {
            Some(last) if last.index >= index => self.waiting.partition_point(|other| other.index <= index),
            _ => self.waiting.len(),
        };
        self.waiting.insert(place, Waiting { index, term, token, since });
    }

    fn refuse_forwarded(&mut self, outcome: ForwardOutcome) {
        for (server, token, _) in self.forwarded.drain(..) {
            self.answers.entry(server).or_default().push(ForwardAnswer { token, outcome });
        }
    }
}

impl Replica {
    /// Puts all writes that have come before the leader: into the log of this server, or on their way to another.
    pub(super) fn propose(&mut self, out: &mut Vec<Effect>) {
        if self.raft.role() != Role::Leader {
            self.writes.refuse_forwarded(ForwardOutcome::NotLeader);
            self.forward();
            return;
        }
        let held_back = self.writes.retry_due(self.now).is_some();
        if self.writes.forwarded.is_empty() && (self.writes.held.is_empty() || held_back) {
            return;
        }
        if self.disk_full || self.log.queued_bytes() > QUEUE_BYTES_MAX {
            self.refuse_all(out);
            return;
        }
        let draft = |body| Draft { kind: EntryKind::Command, version: COMMAND_VERSION, body };
        let mut drafts = Vec::with_capacity(self.writes.held.len() + self.writes.forwarded.len());
        if !held_back {
            for Held { token, body, since } in self.writes.held.drain(..) {
                self.writes.placing.push_back(Origin::Here { token, since });
                drafts.push(draft(body));
            }
        }
        for (server, token, body) in self.writes.forwarded.drain(..) {
            self.writes.placing.push_back(Origin::There { server, token });
            drafts.push(draft(body));
        }
        self.raft_inputs.push_back(raft::Input::Propose { drafts });
        self.run_raft(out);
        debug_assert!(self.writes.placing.is_empty(), "drafts are placed or refused at once");
    }

    /// The next draft is this entry now.
    pub(super) fn placed(&mut self, index: u64, term: u64) {
        match self.writes.placing.pop_front() {
            Some(Origin::Here { token, since }) => self.writes.wait(index, term, token, since),
            Some(Origin::There { server, token }) => {
                let outcome = ForwardOutcome::Accepted { index, term };
                self.writes.answers.entry(server).or_default().push(ForwardAnswer { token, outcome });
            }
            None => {}
        }
    }

    /// Drafts that Raft gave back.
    pub(super) fn refused(&mut self, drafts: Vec<Draft>, why: &Refusal, out: &mut Vec<Effect>) {
        let (here, there) = match why {
            // Another server will lead: nothing of it was done.
            Refusal::NotLeader { .. } | Refusal::Transferring => (None, ForwardOutcome::NotLeader),
            Refusal::DiskFull => (Some(ProposeError::DiskFull), ForwardOutcome::DiskFull),
            _ => (Some(ProposeError::TooBusy), ForwardOutcome::TooBusy),
        };
        let mut refused = Vec::new();
        for draft in drafts {
            match self.writes.placing.pop_front() {
                Some(Origin::Here { token, since }) => match here {
                    Some(error) => refused.push((token, Err(error))),
                    None => self.writes.held.push_back(Held { token, body: draft.body, since }),
                },
                Some(Origin::There { server, token }) => {
                    let answer = ForwardAnswer { token, outcome: there };
                    self.writes.answers.entry(server).or_default().push(answer);
                }
                None => {}
            }
        }
        self.writes.retry_after(self.now);
        answer(refused, out);
    }

    fn refuse_all(&mut self, out: &mut Vec<Effect>) {
        let (here, there) = match self.disk_full {
            true => (ProposeError::DiskFull, ForwardOutcome::DiskFull),
            false => (ProposeError::TooBusy, ForwardOutcome::TooBusy),
        };
        self.writes.refuse_forwarded(there);
        answer(self.writes.held.drain(..).map(|held| (held.token, Err(here))).collect(), out);
    }

    /// The entry at this index is applied: whoever waited for it learns what it did, and whoever waited for another
    /// entry at its place that there will be none.
    pub(super) fn applied_write(
        &mut self,
        index: u64,
        term: u64,
        applied: Option<Done>,
        answers: &mut Vec<(u64, Outcome)>,
    ) {
        let mut applied = applied;
        while self.writes.waiting.front().is_some_and(|first| first.index <= index) {
            let Some(first) = self.writes.waiting.pop_front() else { break };
            let own = if first.index == index && first.term == term { applied.take() } else { None };
            answers.push((first.token, own.ok_or(ProposeError::LeadershipLost)));
        }
    }

    /// Entries from here on are gone. Those of earlier terms will never be committed; an entry that the new leader has
    /// announced is still to come.
    pub(super) fn truncated(&mut self, from: u64, out: &mut Vec<Effect>) {
        let term = self.raft.term();
        let mut lost = Vec::new();
        self.writes.waiting.retain(|waiting| {
            let gone = waiting.index >= from && waiting.term < term;
            if gone {
                lost.push((waiting.token, Err(ProposeError::LeadershipLost)));
            }
            !gone
        });
        self.admins.truncated(from, out);
        answer(lost, out);
    }

    /// A snapshot has leapt over these entries: what they did is not known here.
    pub(super) fn leapt_over(&mut self, index: u64, out: &mut Vec<Effect>) {
        let mut lost = Vec::new();
        self.applied_write(index, 0, None, &mut lost);
        answer(lost, out);
    }

    /// Ends what has waited for too long. Entries of a leader's own term wait until it leads no more, which Raft sees to.
    pub(super) fn expire_writes(&mut self, out: &mut Vec<Effect>) {
        let Some(before) = self.now.checked_sub(self.options.hold_timeout) else { return };
        let mut ended = Vec::new();
        while self.writes.held.front().is_some_and(|held| held.since <= before) {
            ended.extend(self.writes.held.pop_front().map(|held| (held.token, Err(ProposeError::NoLeader))));
        }
        self.writes.forwards.expire(before, &mut ended);
        let (leads, term) = (self.raft.role() == Role::Leader, self.raft.term());
        self.writes.waiting.retain(|waiting| {
            let over = waiting.since <= before && !(leads && waiting.term == term);
            if over {
                ended.push((waiting.token, Err(ProposeError::LeadershipLost)));
            }
            !over
        });
        answer(ended, out);
    }
}

pub(super) fn answer(answers: Vec<(u64, Outcome)>, out: &mut Vec<Effect>) {
    if !answers.is_empty() {
        out.push(Effect::Answers(answers));
    }
}
