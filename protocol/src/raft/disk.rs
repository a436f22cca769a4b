//! What the disk has finished, and what it fails to finish.

use std::time::Duration;

use super::{Effect, Position, Raft, Role};
use crate::entry::{Entry, Now, ServerId};

/// How the own disk does.
#[derive(Debug, Default)]
pub(super) struct Disk {
    /// No room for more entries.
    pub full: bool,
    /// Entries are not yet durable; since when the disk has finished none.
    append_since: Option<Now>,
    /// A vote is not yet durable, since then.
    vote_since: Option<Now>,
    /// What the driver has told: when, and how old its oldest request was.
    told: Option<(Now, Duration)>,
}

impl Disk {
    pub fn append_pending(&mut self, now: Now) {
        self.append_since.get_or_insert(now);
    }

    pub fn vote_pending(&mut self, now: Now) {
        self.vote_since.get_or_insert(now);
    }

    /// Something was finished; whether more is under way.
    pub fn appended(&mut self, now: Now, more: bool) {
        self.append_since = more.then_some(now);
    }

    fn vote_saved(&mut self, now: Now, more: bool) {
        self.vote_since = more.then_some(now);
    }

    /// Whether nothing was finished for `limit`. What the driver has told is true for `told_for`: it tells again.
    fn is_stalled(&self, now: Now, limit: Duration, told_for: Duration) -> bool {
        let owes = |since: Option<Now>| since.is_some_and(|since| now >= since + limit);
        let told = self.told.is_some_and(|(at, age)| age >= limit && now <= at + told_for);
        // A full disk owes nothing.
        !self.full && (owes(self.append_since) || owes(self.vote_since) || told)
    }
}

impl Raft {
    /// Whether the disk has not finished anything for so long that nobody should rely on this server.
    pub(super) fn is_stalled(&self) -> bool {
        let told_for = self.options.heartbeat_interval * 3;
        self.disk.is_stalled(self.now, self.options.disk_stall_limit, told_for)
    }

    pub(super) fn on_disk_pending(&mut self, age: Duration, out: &mut Vec<Effect>) {
        self.disk.told = Some((self.now, age));
        self.hand_over_if_due(out);
    }

    /// Hands entries to the disk; term and vote first, which they belong to.
    pub(super) fn append_to_log(&mut self, entries: Vec<Entry>, out: &mut Vec<Effect>) {
        self.save_vote(out);
        for entry in &entries {
            self.log.push(Position { term: entry.term, index: entry.index }, entry.body.len());
        }
        self.disk.append_pending(self.now);
        out.push(Effect::Append { entries });
    }

    pub(super) fn on_log_durable(&mut self, at: Position, out: &mut Vec<Effect>) {
        // What another leader's entries have replaced meanwhile is durable in vain.
        if !self.log.holds(at) || at.index <= self.durable {
            return;
        }
        self.durable = at.index;
        self.disk.appended(self.now, self.durable < self.log.last().index);
        if self.role == Role::Leader {
            self.advance_commit(out);
        } else {
            self.check_repaired(out);
            self.acknowledge(out);
        }
    }

    pub(super) fn on_vote_saved(&mut self, term: u64, vote: Option<ServerId>, out: &mut Vec<Effect>) {
        if (term, vote.is_some()) < (self.saved.0, self.saved.1.is_some()) {
            return;
        }
        self.saved = (term, vote);
        self.disk.vote_saved(self.now, self.saved != self.save_asked);
        if self.saved == (self.term, self.vote) {
            self.campaign_is_saved(out);
            self.send_granted(out);
        }
        if self.role != Role::Leader {
            self.acknowledge(out);
        }
    }

    pub(super) fn on_disk_full(&mut self, full: bool, out: &mut Vec<Effect>) {
        self.disk.full = full;
        if !full {
            // The time without room was no stall.
            let owed = self.durable < self.log.last().index;
            self.disk.appended(self.now, owed);
        } else if let Some(leading) = &mut self.leading {
            leading.hand_over_at = Some(self.now);
            self.hand_over_if_due(out);
        }
    }

    /// Damage is healed once a leader's log has durably replaced all that this server may have acknowledged:
    /// - up to the index that it knows of;
    /// - or what the leader had when it heard of the damage, for to that leader nothing behind can have been acknowledged;
    /// - or, if the leader was elected since and so without this server, up to an entry of the leader's own: whatever was
    ///   committed with this server's help before, some voter of that leader had too.
    pub(super) fn check_repaired(&mut self, out: &mut Vec<Effect>) {
        if self.repair_until == 0 || self.leader.is_none() {
            return;
        }
        let held = self.following.received.min(self.durable);
        let elected_since = self.term > self.repair_after_term;
        let told = self.following.heal.is_some_and(|through| held >= through);
        let reached = elected_since && self.log.term_at(held) == Some(self.term);
        if held >= self.repair_until || told || reached {
            self.repair_until = 0;
            out.push(Effect::Repaired);
        }
    }
}
