//! Writes that were taken in by a server that does not lead, on their way to the leader and back. A write is sent to a
//! second leader only if the first one has not taken it, or was never sent it.

use std::collections::BTreeMap;

use bytes::Bytes;
use muster_protocol::entry::{Now, ServerId};
use muster_protocol::raft;
use muster_protocol::rpc::PeerMessage;
use muster_protocol::rpc::message::{FORWARD_MAX, ForwardAnswer, ForwardOutcome, Forwarded};

use super::limits::FORWARD_BYTES_MAX;
use super::writes::{Held, answer};
use super::{Effect, Outcome, Replica};
use crate::consensus::ProposeError;
use crate::consensus::encoded::aligned;

/// Writes with the leader.
#[derive(Default)]
pub(super) struct Forwards {
    /// By the token that the leader knows them by.
    sent: BTreeMap<u64, Sent>,
    /// The last such token.
    last: u64,
}

impl Forwards {
    /// Nothing is with the leader; its tokens begin behind this one.
    pub fn new(last: u64) -> Forwards {
        Forwards { sent: BTreeMap::new(), last }
    }
}

struct Sent {
    token: u64,
    since: Now,
    to: ServerId,
    /// To send it again, if it was not taken.
    body: Bytes,
}

impl Forwards {
    pub fn any_wait(&self) -> bool {
        !self.sent.is_empty()
    }

    /// Ends what was sent before a time and not answered. Tokens rise with time, but for what was sent twice.
    pub fn expire(&mut self, before: Now, ended: &mut Vec<(u64, Outcome)>) {
        self.sent.retain(|_, sent| {
            let over = sent.since <= before;
            if over {
                ended.push((sent.token, Err(ProposeError::LeadershipLost)));
            }
            !over
        });
    }
}

impl Replica {
    /// Sends what is held to the leader, if one is known.
    pub(super) fn forward(&mut self) {
        let Some(leader) = self.raft.leader().filter(|leader| *leader != self.id()) else { return };
        if self.writes.retry_due(self.now).is_some() {
            return;
        }
        while !self.writes.held.is_empty() {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while let Some(Held { body, .. }) = self.writes.held.front() {
                bytes += body.len();
                if batch.len() == FORWARD_MAX || (bytes > FORWARD_BYTES_MAX && !batch.is_empty()) {
                    break;
                }
                let Some(Held { token, body, since }) = self.writes.held.pop_front() else { break };
                let forwards = &mut self.writes.forwards;
                forwards.last += 1;
                batch.push(Forwarded { token: forwards.last, body: body.clone() });
                forwards.sent.insert(forwards.last, Sent { token, since, to: leader, body });
            }
            self.sends.push((leader, PeerMessage::Forward(batch)));
        }
    }

    /// Writes of another server, validated where they came in, for this one to put into the log if it leads.
    pub(super) fn take_forwarded(&mut self, from: ServerId, writes: Vec<Forwarded>) {
        for Forwarded { token, body } in writes {
            self.writes.forwarded.push((from, token, aligned(&body)));
        }
    }

    /// Writes of another server, for which this one does nothing now: whoever sent them asks the leader again.
    pub(super) fn give_back(&mut self, from: ServerId, writes: Vec<Forwarded>) {
        let answers = self.writes.answers.entry(from).or_default();
        let not_leader =
            |write: Forwarded| ForwardAnswer { token: write.token, outcome: ForwardOutcome::NotLeader };
        answers.extend(writes.into_iter().map(not_leader));
    }

    /// What the leader has made of ours.
    pub(super) fn take_answers(
        &mut self,
        from: ServerId,
        answers: Vec<ForwardAnswer>,
        out: &mut Vec<Effect>,
    ) {
        let mut ended = Vec::new();
        for ForwardAnswer { token, outcome } in answers {
            if self.writes.forwards.sent.get(&token).is_none_or(|sent| sent.to != from) {
                continue;
            }
            let Some(sent) = self.writes.forwards.sent.remove(&token) else { continue };
            let error = match outcome {
                ForwardOutcome::Accepted { index, term } if index > self.applied.0 => {
                    self.writes.wait(index, term, sent.token, sent.since);
                    continue;
                }
                ForwardOutcome::NotLeader => {
                    self.hold_again(sent);
                    continue;
                }
                // Applied before the answer came: what it did was not kept.
                ForwardOutcome::Accepted { .. } => ProposeError::LeadershipLost,
                ForwardOutcome::TooBusy => ProposeError::TooBusy,
                ForwardOutcome::DiskFull => ProposeError::DiskFull,
            };
            ended.push((sent.token, Err(error)));
        }
        answer(ended, out);
    }

    /// Answers to other servers, one message for each.
    pub(super) fn flush_answers(&mut self) {
        while let Some((server, answers)) = self.writes.answers.pop_first() {
            self.sends.insert(0, (server, PeerMessage::ForwardAnswers(answers)));
        }
    }

    /// What was sent to this server and not answered will not be answered.
    pub(super) fn forwards_lost(&mut self, peer: ServerId, out: &mut Vec<Effect>) {
        let mut ended = Vec::new();
        self.writes.forwards.sent.retain(|_, sent| {
            let lost = sent.to == peer;
            if lost {
                ended.push((sent.token, Err(ProposeError::LeadershipLost)));
            }
            !lost
        });
        answer(ended, out);
    }

    /// A message that no link took.
    pub(super) fn unsent(&mut self, to: ServerId, message: PeerMessage) {
        match message {
            PeerMessage::Forward(writes) => {
                for Forwarded { token, .. } in writes {
                    if let Some(sent) = self.writes.forwards.sent.remove(&token) {
                        self.hold_again(sent);
                    }
                }
            }
            PeerMessage::ReadIndex { token, .. } => self.read_answered(to, token, None),
            PeerMessage::Raft(raft::Message::Append(append)) if !append.entries.is_empty() => {
                self.raft_inputs.push_back(raft::Input::Unreachable { to });
            }
            // Raft repeats its own, snapshots are sent again after a while, and who waits for an answer asks again.
            _ => {}
        }
    }

    fn hold_again(&mut self, sent: Sent) {
        let Sent { token, since, body, .. } = sent;
        let place = self.writes.held.partition_point(|held| held.since <= since);
        self.writes.held.insert(place, Held { token, body, since });
        self.writes.retry_after(self.now);
    }
}
