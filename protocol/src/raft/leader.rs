//! Leading: entries go to the own log and to all others at once, and are committed when a quorum has them durably
//! (thesis, sections 3.5, 6.4 and 10.2.1).

use std::collections::BTreeMap;

use super::membership::Applied;
use super::progress::Progress;
use super::reads::Reads;
use super::transfer::Transfer;
use super::{
    Append, AppendReply, Draft, Effect, Heal, Message, Outcome, PeerState, Raft, Refusal, Role, StepDown,
};
use crate::entry::{Entry, EntryKind, Now, ServerId};

/// What only a leader has.
#[derive(Debug)]
pub(super) struct Leading {
    /// All other servers of the configuration, and those that are just leaving it.
    pub peers: BTreeMap<ServerId, Progress>,
    /// Index of this term's first entry.
    pub first_index: u64,
    /// The newest round of signs of life, and when it began.
    pub round: u64,
    pub round_began: Now,
    pub heartbeat_at: Now,
    /// How many transfers were given up in this term.
    pub epoch: u64,
    /// Only rounds from this one on count for the lease.
    pub lease_from: u64,
    pub transfer: Option<Transfer>,
    pub reads: Reads,
    /// When to try again to hand over because of the own disk.
    pub hand_over_at: Option<Now>,
}

impl Raft {
    pub(super) fn become_leader(&mut self, out: &mut Vec<Effect>) {
        assert!(self.role == Role::Candidate && self.saved == (self.term, Some(self.options.id)));
        assert!(self.leader.is_none(), "two leaders in term {}", self.term);
        self.role = Role::Leader;
        self.leader = Some(self.options.id);
        let first_index = self.log.last().index + 1;
        self.leading = Some(Box::new(Leading {
            peers: BTreeMap::new(),
            first_index,
            round: 1,
            round_began: self.now,
            heartbeat_at: self.now + self.options.heartbeat_interval,
            epoch: 0,
            lease_from: 0,
            transfer: None,
            reads: Reads::default(),
            hand_over_at: None,
        }));
        self.align_peers(first_index);
        let noop = Draft { kind: EntryKind::Noop, version: 0, body: bytes::Bytes::new() };
        self.append_drafts(vec![noop], out);
    }

    pub(super) fn leader_deadline(&self, leading: &Leading) -> Now {
        let transfer = leading.transfer.as_ref().map(|transfer| transfer.deadline);
        transfer.map_or(leading.heartbeat_at, |deadline| deadline.min(leading.heartbeat_at))
    }

    pub(super) fn on_leader_tick(&mut self, out: &mut Vec<Effect>) {
        let timeout = self.options.election_timeout;
        let Some(leading) = &self.leading else { return };
        if self.now >= leading.heartbeat_at {
            if self.quorum_contact(leading) + timeout < self.now {
                return self.become_follower(self.term, StepDown::QuorumLost, out);
            }
            let Some(leading) = &mut self.leading else { return };
            leading.peers.retain(|_, peer| peer.leaves.is_none_or(|leave| self.now < leave.until));
            // With nobody to ask, this server only looks at itself now and then; who is taken in is asked soon enough.
            let alone = leading.peers.is_empty();
            leading.heartbeat_at = self.now + if alone { timeout } else { self.options.heartbeat_interval };
            self.begin_round(out);
            self.push_transfer(true, out);
        }
        self.expire_transfer(out);
        self.hand_over_if_due(out);
    }

    pub(super) fn on_propose(&mut self, drafts: Vec<Draft>, out: &mut Vec<Effect>) {
        match self.refusal() {
            Some(why) => out.push(Effect::Refused { drafts, why }),
            None if drafts.iter().any(|draft| draft.kind == EntryKind::Configuration) => {
                let why = Refusal::Invalid("servers are changed one at a time, by a change");
                out.push(Effect::Refused { drafts, why });
            }
            None if drafts.is_empty() => {}
            None => self.append_drafts(drafts, out),
        }
    }

    /// Why no drafts are taken now.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        let Some(leading) = &self.leading else { return Some(Refusal::NotLeader { leader: self.leader }) };
        if leading.transfer.is_some() {
            return Some(Refusal::Transferring);
        }
        if self.disk.full {
            return Some(Refusal::DiskFull);
        }
        let uncommitted = self.log.bytes(self.commit, self.log.last().index);
        (uncommitted > self.options.limits.uncommitted_bytes).then_some(Refusal::Overloaded)
    }

    /// Gives drafts their places; they go to the disk and to the others at the same time.
    pub(super) fn append_drafts(&mut self, drafts: Vec<Draft>, out: &mut Vec<Effect>) {
        let first = self.log.last().index + 1;
        let entries = (first..).zip(drafts).map(|(index, draft)| Entry {
            term: self.term,
            index,
            kind: draft.kind,
            version: draft.version,
            body: draft.body,
        });
        let entries = entries.collect();
        self.append_to_log(entries, out);
        self.send_to_all(out);
    }

    pub(super) fn send_to_all(&mut self, out: &mut Vec<Effect>) {
        let Some(leading) = &self.leading else { return };
        let peers: Vec<ServerId> = leading.peers.keys().copied().collect();
        for to in peers {
            self.send_entries(to, out);
        }
    }

    /// Sends what a server does not have yet, as far as its window allows.
    fn send_entries(&mut self, to: ServerId, out: &mut Vec<Effect>) {
        let Some(leading) = &mut self.leading else { return };
        let (round, round_began, epoch) = (leading.round, leading.round_began, leading.epoch);
        let Some(peer) = leading.peers.get_mut(&to) else { return };
        while let Some((prev, last)) = peer.take_range(self.now, &self.log, &self.options.limits) {
            peer.commit_told = self.commit;
            let append = Append {
                term: self.term,
                prev,
                entries: Vec::new(),
                commit: self.commit,
                round,
                round_began,
                epoch,
                answer: true,
                heal: peer.heal,
            };
            out.push(Effect::SendEntries { to, append, last });
        }
    }

    /// Asks every server for a sign of life.
    pub(super) fn begin_round(&mut self, out: &mut Vec<Effect>) {
        let Some(leading) = &mut self.leading else { return };
        leading.round += 1;
        leading.round_began = self.now;
        let peers: Vec<ServerId> = leading.peers.keys().copied().collect();
        for to in peers {
            self.send_sign(to, true, out);
        }
    }

    /// Tells that this server leads, and how far is committed.
    fn send_sign(&mut self, to: ServerId, answer: bool, out: &mut Vec<Effect>) {
        let Some(leading) = &mut self.leading else { return };
        let Some(peer) = leading.peers.get_mut(&to) else { return };
        peer.commit_told = self.commit;
        let append = Append {
            term: self.term,
            prev: peer.prev(&self.log),
            entries: Vec::new(),
            commit: self.commit,
            round: leading.round,
            round_began: leading.round_began,
            epoch: leading.epoch,
            answer,
            heal: peer.heal,
        };
        out.push(Effect::Send { to, message: Message::Append(append) });
    }

    /// Tells those of a new commit index to whom no entries are on their way that will bring it along.
    pub(super) fn tell_commit(&mut self, out: &mut Vec<Effect>) {
        let Some(leading) = &self.leading else { return };
        let untold = leading.peers.iter().filter(|(_, peer)| {
            peer.state == PeerState::Replicate && peer.commit_told < self.commit && peer.is_quiet()
        });
        let untold: Vec<ServerId> = untold.map(|(id, _)| *id).collect();
        for to in untold {
            self.send_sign(to, false, out);
        }
    }

    pub(super) fn on_append_reply(&mut self, from: ServerId, reply: AppendReply, out: &mut Vec<Effect>) {
        let last = self.log.last().index;
        let Some(leading) = &mut self.leading else { return };
        let Some(peer) = leading.peers.get_mut(&from) else { return };
        // A round that is still to come is a liar's: the lease would rest on it.
        let round_known = reply.round <= leading.round && reply.round_began <= leading.round_began;
        if reply.term != self.term || !round_known {
            return;
        }
        peer.contact = self.now;
        peer.full = reply.full;
        if reply.damage != peer.heal.map(|heal| heal.damage) {
            peer.heal = reply.damage.map(|damage| Heal { damage, through: last });
        }
        if reply.round > peer.round {
            (peer.round, peer.round_began) = (reply.round, reply.round_began);
        }
        match reply.outcome {
            Outcome::Accepted { durable, received } => {
                // More than this leader ever sent: a server that knows of a past which the others have lost, or a liar.
                if durable > received || received > last {
                    return;
                }
                // Whole links that break are told; this is for single messages, which a slow disk here may delay, too.
                let grace = self.options.election_timeout;
                peer.accepted(durable, received, reply.round_began, grace);
            }
            Outcome::Rejected { prev, hint } => {
                if peer.rejected(prev, hint, &self.log) {
                    out.push(Effect::SendSnapshot { to: from, term: self.term });
                }
            }
        }
        self.let_leave(from);
        self.send_entries(from, out);
        self.advance_commit(out);
        self.confirm_reads(out);
        self.push_transfer(false, out);
    }

    pub(super) fn on_unreachable(&mut self, to: ServerId) {
        if let Some(peer) = self.leading.as_mut().and_then(|leading| leading.peers.get_mut(&to)) {
            peer.unreachable(self.now);
        }
    }

    /// Commits what a quorum has durably, if it is of this term (thesis, section 3.6.2).
    pub(super) fn advance_commit(&mut self, out: &mut Vec<Effect>) {
        let Some(leading) = &self.leading else { return };
        let durable = |id: ServerId| match leading.peers.get(&id) {
            _ if id == self.options.id => self.durable,
            Some(peer) => peer.durable,
            None => 0,
        };
        let Some(index) = self.reached_by_quorum(durable) else { return };
        if index <= self.commit || self.log.term_at(index) != Some(self.term) {
            return;
        }
        self.set_commit(index, out);
        self.begin_reads(out);
        if self.applied_configuration() == Applied::WithoutMe {
            self.resign(out);
        }
    }

    /// When a quorum last answered, this server among them.
    pub(super) fn quorum_contact(&self, leading: &Leading) -> Now {
        let contact = |id: ServerId| match leading.peers.get(&id) {
            _ if id == self.options.id => self.now,
            Some(peer) => peer.contact,
            None => Now::ZERO,
        };
        self.reached_by_quorum(contact).unwrap_or(self.now)
    }

    /// Leads no more: what waited for it is told so.
    pub(super) fn end_leadership(&mut self, leading: Leading, out: &mut Vec<Effect>) {
        leading.reads.fail(&Refusal::NotLeader { leader: None }, out);
        if let Some(transfer) = leading.transfer {
            transfer.end_with_leadership(out);
        }
    }
}
