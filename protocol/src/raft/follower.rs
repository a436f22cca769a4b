//! Following a leader: its entries go into the log, and what is durable is acknowledged (thesis, section 3.5).

use super::{Append, AppendReply, Effect, Message, Outcome, Position, Raft, Role};
use crate::entry::{Configuration, Entry, EntryKind, Now, ServerId};

/// What a follower knows of its leader in this term.
#[derive(Debug)]
pub(super) struct Following {
    /// The log agrees with the leader's up to here.
    pub received: u64,
    /// What was last acknowledged as durable.
    acknowledged: u64,
    /// When an answer was last given.
    answered: Now,
    /// The newest round that was heard of, and when it began on the leader's clock.
    round: u64,
    round_began: Now,
    /// How many transfers the leader has given up.
    pub epoch: u64,
    /// This server is damaged, and whole again when it has durably what the leader has up to here.
    pub heal: Option<u64>,
}

impl Following {
    /// Of a new leader nothing is known but that its log agrees with what is committed.
    pub fn new(commit: u64) -> Following {
        Following {
            received: commit,
            acknowledged: 0,
            answered: Now::ZERO,
            round: 0,
            round_began: Now::ZERO,
            epoch: 0,
            heal: None,
        }
    }
}

impl Raft {
    pub(super) fn on_append(&mut self, from: ServerId, append: Append, out: &mut Vec<Effect>) {
        let rejected =
            Outcome::Rejected { prev: append.prev.index, hint: self.log.last_not_after(append.prev) };
        if append.term < self.term {
            return self.answer(from, rejected, out);
        }
        if !is_well_formed(&append) {
            return;
        }
        if let Some(why) = self.contradiction(&append) {
            return out.push(Effect::Contradicted { from, why });
        }
        if !self.note_leader(from, out) {
            return;
        }
        if append.round > self.following.round {
            (self.following.round, self.following.round_began) = (append.round, append.round_began);
        }
        self.following.epoch = self.following.epoch.max(append.epoch);
        if let Some(heal) = append.heal.filter(|heal| heal.damage == self.damage) {
            self.following.heal = Some(heal.through);
        }
        if !self.agrees(append.prev) {
            return self.answer(from, rejected, out);
        }
        let Append { prev, mut entries, commit, answer, .. } = append;
        let sent = entries.len();
        let known = entries.iter().take_while(|entry| self.agrees(position(entry))).count();
        entries.drain(..known);
        let mut received = prev.index + known as u64;
        let is_new = !entries.is_empty() && !self.takes_none();
        if is_new {
            received += entries.len() as u64;
            if let Err(why) = self.take_entries(entries, out) {
                return out.push(Effect::Fatal { why });
            }
        }
        self.following.received = self.following.received.max(received);
        self.set_commit(commit.min(self.following.received), out);
        self.check_repaired(out);
        let answers_now = match is_new {
            false => answer || sent > 0,
            // The answer waits for the disk. But while entries fill the link, signs of life may be late behind them: the leader is
            // to hear now and then that they arrive.
            true => self.now >= self.following.answered + self.options.heartbeat_interval,
        };
        if answers_now {
            self.answer_accepted(out);
        }
    }

    /// What a leader of this term cannot say: that it has another entry where one is committed, or another one than it has sent
    /// before. Whoever says so has lost what it had promised, or lies: following it would cost what was acknowledged.
    fn contradiction(&self, append: &Append) -> Option<String> {
        let places = std::iter::once(append.prev).chain(append.entries.iter().map(position));
        let committed = |at: &Position| at.index <= self.commit && self.differs(*at);
        if let Some(at) = places.clone().find(committed) {
            let known = self.log.term_at(at.index).unwrap_or_default();
            return Some(format!(
                "it has an entry of term {} at index {}, where one of term {known} is committed",
                at.term, at.index
            ));
        }
        let received = |at: &Position| at.index <= self.following.received && self.differs(*at);
        let changed = places.into_iter().find(received)?;
        Some(format!("it has changed its log at index {} in term {}", changed.index, self.term))
    }

    /// Whether the log holds another entry at this place.
    fn differs(&self, at: Position) -> bool {
        self.log.term_at(at.index).is_some_and(|term| term != at.term)
    }

    /// Whether the log agrees with the leader's at a place. What is committed always does.
    fn agrees(&self, at: Position) -> bool {
        at.index <= self.commit || self.log.holds(at)
    }

    /// Entries are not taken now, all else is: the disk has no room, or the state machine is behind.
    fn takes_none(&self) -> bool {
        self.disk.full || self.behind
    }

    /// Puts entries that are new here into the log, in the place of what differs.
    fn take_entries(&mut self, entries: Vec<Entry>, out: &mut Vec<Effect>) -> Result<(), String> {
        let configurations = configurations(&entries)?;
        let from = entries[0].index;
        if from <= self.log.last().index {
            self.truncate(from, out);
        }
        self.append_to_log(entries, out);
        for (index, configuration) in configurations {
            self.take_configuration(index, configuration, out);
        }
        Ok(())
    }

    fn truncate(&mut self, from: u64, out: &mut Vec<Effect>) {
        assert!(from > self.commit, "entry {from} is committed and must stay: commit is {}", self.commit);
        assert!(
            from > self.following.received,
            "the leader of term {} has changed its log at {from}",
            self.term
        );
        self.save_vote(out);
        self.log.truncate(from);
        self.durable = self.durable.min(from - 1);
        out.push(Effect::Truncated { from });
        if self.configurations.truncate(from)
            && let Some((index, configuration)) = self.configurations.latest().cloned()
        {
            out.push(Effect::Configuration { index, configuration });
        }
    }

    /// Acknowledges to the leader what has become durable.
    pub(super) fn acknowledge(&mut self, out: &mut Vec<Effect>) {
        if self.role == Role::Follower && self.durable_here() > self.following.acknowledged {
            self.answer_accepted(out);
        }
    }

    fn answer_accepted(&mut self, out: &mut Vec<Effect>) {
        let Some(leader) = self.leader else { return };
        let durable = self.durable_here();
        (self.following.acknowledged, self.following.answered) = (durable, self.now);
        self.answer(leader, Outcome::Accepted { durable, received: self.following.received }, out);
    }

    /// What agrees with the leader's log and survives a crash, as part of this term, which must survive too.
    fn durable_here(&self) -> u64 {
        if self.saved.0 == self.term { self.following.received.min(self.durable) } else { 0 }
    }

    fn answer(&self, to: ServerId, outcome: Outcome, out: &mut Vec<Effect>) {
        // A server without any durable term would after a crash not know that a leader relies on this answer.
        let remembers = self.saved.0 > 0;
        let (round, round_began) = match remembers {
            true => (self.following.round, self.following.round_began),
            false => (0, Now::ZERO),
        };
        let reply = AppendReply {
            term: self.term,
            round,
            round_began,
            outcome,
            full: self.takes_none(),
            damage: Some(self.damage).filter(|_| self.repair_until > 0),
        };
        out.push(Effect::Send { to, message: Message::AppendReply(reply) });
    }
}

fn position(entry: &Entry) -> Position {
    Position { term: entry.term, index: entry.index }
}

/// Entries follow each other, and terms never decrease.
fn is_well_formed(append: &Append) -> bool {
    let mut before = append.prev;
    append.entries.iter().all(|entry| {
        let follows = Some(entry.index) == before.index.checked_add(1) && entry.term >= before.term;
        before = position(entry);
        follows
    }) && before.term <= append.term
}

fn configurations(entries: &[Entry]) -> Result<Vec<(u64, Configuration)>, String> {
    let of_kind = entries.iter().filter(|entry| entry.kind == EntryKind::Configuration);
    let decoded = of_kind.map(|entry| {
        let read = Configuration::decode(entry.version, &entry.body);
        read.map(|configuration| (entry.index, configuration)).map_err(|why| {
            format!("cannot read entry {} of the log: {why}; upgrade this server", entry.index)
        })
    });
    decoded.collect()
}
