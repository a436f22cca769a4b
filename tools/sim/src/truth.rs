//! What all servers together have shown to be true, held against whatever one of them says next.

use std::collections::{BTreeMap, BTreeSet};

use histories::{Key, Value, Violation};

use crate::queue::Time;

/// Facts about the one log that all servers share.
#[derive(Default)]
pub struct Truth {
    leaders: BTreeMap<u64, usize>,
    /// Terms of applied entries; the first is index 1.
    terms: Vec<u64>,
    /// Of each committed entry its own term, and the one in which it was seen to be committed first; the first is index 1.
    committed: Vec<(u64, u64)>,
    /// Fingerprint of the state after an entry.
    states: BTreeMap<u64, u64>,
    /// Where each key changed, by index of the state.
    changes: BTreeMap<Key, BTreeSet<u64>>,
    /// Where each value was written, by index of the state.
    written: BTreeMap<Value, u64>,
    /// Where the whole state was replaced by a write.
    replaced: BTreeSet<u64>,
    /// What each copy showed from when on.
    pub shown: Vec<(u32, Time, u64)>,
}

impl Truth {
    /// A server leads.
    ///
    /// # Errors
    /// Another one led in that term.
    pub fn leads(&mut self, term: u64, server: usize) -> Result<bool, Violation> {
        match self.leaders.insert(term, server) {
            Some(other) if other != server => {
                let story = format!("servers {other} and {server} both led in term {term}");
                Err(Violation { rule: "one leader in a term", story })
            }
            before => Ok(before.is_none()),
        }
    }

    /// A server has applied the entry of an index and term.
    ///
    /// # Errors
    /// Another server applied another entry there.
    pub fn applied(&mut self, server: usize, index: u64, term: u64) -> Result<(), Violation> {
        let place = index as usize - 1;
        if place >= self.terms.len() {
            // Entries in between came with a snapshot; 0 is a term that nobody has told yet.
            self.terms.resize(place + 1, 0);
        }
        if self.terms[place] == 0 {
            self.terms[place] = term;
        }
        if self.terms[place] == term {
            return Ok(());
        }
        let story = format!(
            "server {server} applied entry {index} of term {term}, which another had of term {}",
            self.terms[place]
        );
        Err(Violation { rule: "committed entries are the same", story })
    }

    /// A server's state after the entry of an index.
    ///
    /// # Errors
    /// Another server's was another one.
    pub fn state(&mut self, server: usize, index: u64, fingerprint: u64) -> Result<(), Violation> {
        match self.states.insert(index, fingerprint) {
            Some(other) if other != fingerprint => {
                let story =
                    format!("server {server} after entry {index}: {fingerprint:x}, another had {other:x}");
                Err(Violation { rule: "same entries, same state", story })
            }
            _ => Ok(()),
        }
    }

    /// The newest entry that anybody called committed.
    pub fn newest_committed(&self) -> u64 {
        self.committed.len() as u64
    }

    /// The next entry is committed: its own term (0: not told) and the one in which this is seen. A leader of an early term
    /// may commit nothing of its own; that its entries are committed only a later leader says.
    pub fn committed(&mut self, term: u64, seen_in: u64) {
        self.committed.push((term, seen_in));
    }

    /// The newest entry, and its term, that was committed in a term before this one.
    pub fn newest_before(&self, term: u64) -> Option<(u64, u64)> {
        let place = self.committed.iter().rposition(|(own, seen_in)| *own > 0 && *seen_in < term)?;
        Some((place as u64 + 1, self.committed[place].0))
    }

    /// A key changed at an index of the state.
    pub fn changed(&mut self, key: Key, index: u64) {
        self.changes.entry(key).or_default().insert(index);
    }

    /// A value was written at an index of the state.
    ///
    /// # Errors
    /// It was seen elsewhere: it was written twice.
    pub fn wrote(&mut self, value: Value, index: u64) -> Result<(), Violation> {
        match self.written.insert(value, index) {
            Some(other) if other != index => {
                let story = format!("value {value} was written at {other} and at {index}");
                Err(Violation { rule: "a write happens once", story })
            }
            _ => Ok(()),
        }
    }

    /// Where a value was written, if anybody saw it.
    pub fn place_of(&self, value: Value) -> Option<u64> {
        self.written.get(&value).copied()
    }

    /// The judge of blocking queries.
    pub fn judge(&self) -> histories::watch::Judge {
        let mut judge = histories::watch::Judge::default();
        for (key, indexes) in &self.changes {
            indexes.iter().for_each(|index| judge.changed(*key, *index));
        }
        self.replaced.iter().for_each(|index| judge.replaced(*index));
        self.shown.iter().for_each(|(copy, time, index)| judge.shown(*copy, *time, *index));
        judge
    }
}
