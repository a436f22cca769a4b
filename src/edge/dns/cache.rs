//! Answers in wire form, kept per core until what they rest on changes.
//!
//! Bounded in entries and bytes by two generations: the young one takes what is new or asked again; when it is full it
//! becomes the old one, and the old one goes. So a flood of names that are asked once drives out
//! little that is asked often, and nothing is ever searched for a victim.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};

use muster_protocol::dns::template::Template;

use super::lookup::Basis;
use crate::store::State;
use crate::store::topic::Topic;

/// Most answers of one generation.
pub const ENTRIES_MAX: usize = 8_192;
/// Most bytes of one generation; an answer larger than that is not kept.
pub const BYTES_MAX: usize = 4 << 20;
/// Bytes that an entry weighs besides its key and its template, roughly.
const ENTRY_OVERHEAD: usize = 128;

/// See the module's text.
pub struct AnswerCache {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    places: HashMap<Box<[u8]>, u32, Seeded>,
    entries: Vec<Option<Entry>>,
    bytes: usize,
}

struct Entry {
    template: Template,
    /// Index of the state it was last found true for.
    checked: u64,
    /// See [`State::history`].
    history: u64,
    /// Topics it rests on, with the index of their last change; `None`: it rests on everything.
    topics: Option<Box<[(Topic, u64)]>>,
    weight: usize,
}

impl AnswerCache {
    /// An empty cache whose hash table cannot be aimed at without knowing `seed`.
    pub fn new(seed: u64) -> AnswerCache {
        AnswerCache { young: Generation::new(seed), old: Generation::new(seed) }
    }

    /// The answer kept under `key`, if it still holds.
    pub fn get(&mut self, key: &[u8], state: &State) -> Option<&mut Template> {
        let place = match self.young.places.get(key) {
            Some(&place) => place as usize,
            None => self.promote(key)?,
        };
        let entry = self.young.entries[place].as_mut().expect("a place leads to an entry");
        entry.still_holds(state).then_some(&mut entry.template)
    }

    /// Keeps an answer, unless it is made for one question only or too large.
    pub fn put(&mut self, key: &[u8], template: Template, basis: Basis, state: &State) {
        let topics = match basis {
            Basis::Once => return,
            Basis::Everything => None,
            Basis::Topics(topics) => Some(
                topics
                    .into_iter()
                    .map(|topic| topic.folded())
                    .map(|topic| {
                        let changed = state.last_change(&topic);
                        (topic, changed)
                    })
                    .collect(),
            ),
        };
        let weight = template.weight() + key.len() + ENTRY_OVERHEAD;
        if weight > BYTES_MAX {
            return;
        }
        let entry = Entry { template, checked: state.index(), history: state.history(), topics, weight };
        self.make_room(weight);
        self.young.insert(key.into(), entry);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Moves an answer from the old generation to the young one; its place there.
    fn promote(&mut self, key: &[u8]) -> Option<usize> {
        let (key, place) = self.old.places.remove_entry(key)?;
        let entry = self.old.entries[place as usize].take().expect("a place leads to an entry");
        self.make_room(entry.weight);
        Some(self.young.insert(key, entry))
    }

    fn make_room(&mut self, weight: usize) {
        if self.young.entries.len() >= ENTRIES_MAX || self.young.bytes + weight > BYTES_MAX {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.clear();
        }
    }
}

impl Generation {
    fn new(seed: u64) -> Generation {
        Generation { places: HashMap::with_hasher(Seeded(seed)), ..Generation::default() }
    }

    fn insert(&mut self, key: Box<[u8]>, entry: Entry) -> usize {
        self.bytes += entry.weight;
        if let Some(&place) = self.places.get(&key) {
            let place = place as usize;
            let before = self.entries[place].replace(entry);
            self.bytes -= before.map_or(0, |entry| entry.weight);
            return place;
        }
        let place = self.entries.len();
        self.entries.push(Some(entry));
        self.places.insert(key, place as u32);
        place
    }

    fn clear(&mut self) {
        self.places.clear();
        self.entries.clear();
        self.bytes = 0;
    }
}

impl Entry {
    #[inline]
    fn still_holds(&mut self, state: &State) -> bool {
        if self.checked == state.index() {
            return true;
        }
        let Some(topics) = &self.topics else { return false };
        let holds = self.history == state.history()
            && topics.iter().all(|(topic, changed)| state.last_change(topic) == *changed);
        if holds {
            self.checked = state.index();
        }
        holds
    }
}

/// A fast hash of short byte strings, keyed: names come from strangers. Folded multiplication, as in wyhash.
#[derive(Clone, Copy, Default)]
struct Seeded(u64);

struct Folding(u64);

impl BuildHasher for Seeded {
    type Hasher = Folding;

    fn build_hasher(&self) -> Folding {
        Folding(self.0 ^ 0x9e37_79b9_7f4a_7c15)
    }
}

impl Hasher for Folding {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        for word in words.iter().chain([&last]) {
            let mixed = u128::from(self.0 ^ u64::from_le_bytes(*word)) * 0xa076_1d64_78bd_642f;
            self.0 = (mixed >> 64) as u64 ^ mixed as u64;
        }
        self.0 ^= bytes.len() as u64;
    }

    fn finish(&self) -> u64 {
        let mixed = u128::from(self.0 ^ 0xe703_7ed1_a0b4_28db) * 0x8ebc_6af0_9c88_c6e3;
        (mixed >> 64) as u64 ^ mixed as u64
    }
}
