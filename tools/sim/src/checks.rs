//! What is checked while a run goes on: after everything that a server makes known.

use std::time::Duration;

use muster::consensus::Standing;
use muster::store::State;

use crate::clients::topic_of;
use crate::locks::names;
use crate::queue::{MILLI, Time};
use crate::server::row_of;
use crate::trace;
use crate::world::World;

impl World {
    /// A server says how it stands.
    pub fn stands(&mut self, server: usize, standing: Standing) {
        trace!(
            self,
            "s{server} stands {:?} term {} leader {:?} last {} commit {} applied {} servers {}@{}",
            standing.role,
            standing.term,
            standing.leader.map(|id| id.0[15]),
            standing.last_log_index,
            standing.commit_index,
            standing.applied_index,
            standing.configuration.servers.len(),
            standing.configuration_index,
        );
        self.trace.mix(self.now, [4, server as u64, standing.term << 2 | standing.role as u64]);
        let (term, leads) = (standing.term, standing.leads());
        self.set_standing(server, standing);
        if !leads {
            return;
        }
        match self.truth.leads(term, server) {
            Ok(true) => {
                self.tally.one("elections");
                self.check_completeness(server, term);
                self.doom(server);
            }
            Ok(false) => {}
            Err(violation) => self.require(Err(violation)),
        }
    }

    /// Notes what a server has learned to be committed.
    pub fn note_committed(&mut self, server: usize) {
        let Some(replica) = self.servers[server].replica() else { return };
        let (commit, term) = (replica.raft().commit_index(), replica.raft().term());
        for index in self.truth.newest_committed() + 1..=commit {
            self.truth.committed(replica.log().term_at(index).unwrap_or(0), term);
        }
    }

    /// A new leader holds all that was committed in terms before its own (Ongaro's thesis, section 3.6.3), though not what
    /// entries of such terms were committed only later: it may have been elected long before it learns of it.
    fn check_completeness(&mut self, server: usize, leads: u64) {
        let Some((index, term)) = self.truth.newest_before(leads) else { return };
        let Some(replica) = self.servers[server].replica() else { return };
        let log = replica.log();
        let held = log.term_at(index);
        let behind = log.last_index() < index;
        if behind || held.is_some_and(|held| held != term) {
            let story = format!(
                "s{server} leads without entry {index} of term {term}: it has {held:?}, last {}",
                log.last_index()
            );
            self.fail("a leader holds all that is committed", story);
        }
    }

    /// A server shows a new state to its readers.
    pub fn check_published(&mut self, server: usize, before: u64, applied: u64, old: &State) {
        if applied < before {
            return self.fail("readers never go back", format!("s{server} from {before} to {applied}"));
        }
        let Some(replica) = self.servers[server].replica() else { return };
        let terms: Vec<(u64, u64)> = (before + 1..=applied)
            .filter_map(|index| replica.log().term_at(index).map(|term| (index, term)))
            .collect();
        let Some((_, state)) = self.servers[server].published() else { return };
        let state = state.clone();
        if state.index() < old.index() {
            let story = format!("s{server} from index {} to {}", old.index(), state.index());
            return self.fail("readers never go back", story);
        }
        for (index, term) in terms {
            let result = self.truth.applied(server, index, term);
            self.require(result);
        }
        self.tally.one("states compared");
        let result = self.truth.state(server, applied, state.fingerprint());
        self.require(result);
        self.note_changes(&state, old);
    }

    /// A server shows what was in its snapshot, which nobody may have shown before: states are given out by the batch.
    pub fn check_started(&mut self, server: usize) {
        let Some((applied, state)) = self.servers[server].published() else { return };
        let state = state.clone();
        let result = self.truth.state(server, applied, state.fingerprint());
        self.require(result);
        self.note_changes(&state, &State::new());
    }

    /// What can be watched of locks: what has another answer has changed, as far as watchers are told.
    fn note_lock_changes(&mut self, state: &State, old: &State) {
        let Some(locks) = &self.locks else { return };
        let next = state.index() == old.index() + 1;
        for number in names::watchable(locks.plan.keys, locks.plan.nodes) {
            let Some(topic) = names::topic_of(number) else { continue };
            let (before, change) = (old.last_change(&topic), state.last_change(&topic));
            let same = names::answer(state, &topic) == names::answer(old, &topic);
            if change == before && !same {
                let story = format!("{topic:?} at {}, which changed last at {change}", state.index());
                return self.fail("what has another answer has changed", story);
            }
            if change != before && same && next {
                let story = format!("{topic:?} at {}, which changed last at {before}", state.index());
                return self.fail("what has changed has another answer", story);
            }
            if change != before {
                self.truth.changed(number, change);
            }
        }
    }

    /// Remembers where keys changed and where values were written.
    fn note_changes(&mut self, state: &State, old: &State) {
        self.note_lock_changes(state, old);
        for key in 0..self.plan.keys {
            let topic = topic_of(Some(key));
            let change = state.last_change(&topic);
            if change == old.last_change(&topic) {
                continue;
            }
            self.truth.changed(key, change);
            if let Some(row) = row_of(state, key) {
                let result = self.truth.wrote(row.value, row.modified);
                self.require(result);
            }
        }
    }

    /// A stale read tells honestly how old the leader's word is that it rests on.
    pub fn check_age(&mut self, server: usize) {
        if self.locks.is_some() {
            // Machines sleep there, and their clocks with them.
            return;
        }
        let this = &self.servers[server];
        let (Some(replica), Some((applied, _))) = (this.replica(), this.published()) else { return };
        if replica.leads() {
            return;
        }
        let Some(contact) = replica.contact() else { return };
        let told = this.clock.local(self.now).saturating_sub(contact);
        // The newest word of a leader that this state holds all of.
        let word = this.heard().rev().find(|(_, commit)| *commit <= applied);
        let Some((heard, _)) = word else { return };
        let true_age = Duration::from_nanos(self.now - heard);
        if told + Duration::from_nanos(MILLI) < true_age.mul_f64(0.9) {
            let story = format!("s{server} says {told:?} and heard its leader {true_age:?} ago");
            self.fail("the age of a stale answer is honest", story);
        }
    }

    /// What must have happened in a run that says something.
    pub fn was_idle(&self) -> Option<String> {
        let least: [(&str, u64); 4] =
            [("operations", 20), ("answers: write", 5), ("elections", 1), ("states compared", 10)];
        let missed: Vec<String> = least
            .iter()
            .filter(|(name, least)| self.tally.get(name) < *least)
            .map(|(name, least)| format!("{name}: {} of {least}", self.tally.get(name)))
            .collect();
        (!missed.is_empty()).then(|| missed.join(", "))
    }

    /// Virtual seconds so far.
    pub fn seconds(&self) -> Time {
        self.now / crate::queue::SECOND
    }
}
