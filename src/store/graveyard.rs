//! When names that are gone were last seen: a bounded memory of deletions, so that a query on something
//! absent knows exactly whether it missed a change.

use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use super::limits::GRAVES_DROPPED_AT_ONCE;

/// Deletion index by key. When full, the oldest are forgotten and `floor` rises to the newest of those.
#[derive(Clone, Debug)]
pub(super) struct Graveyard {
    by_key: OrdMap<Arc<str>, u64>,
    by_age: OrdSet<(u64, Arc<str>)>,
    floor: u64,
    max: usize,
}

impl Graveyard {
    pub(super) fn new(max: usize) -> Graveyard {
        assert!(max > GRAVES_DROPPED_AT_ONCE);
        Graveyard { by_key: OrdMap::new(), by_age: OrdSet::new(), floor: 0, max }
    }

    /// The index at which `key` went, or the floor when that is not (any more) known.
    pub(super) fn index_of(&self, key: &str) -> u64 {
        self.by_key.get(key).copied().unwrap_or(0).max(self.floor)
    }

    /// Newest deletion that is forgotten.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Says which deletions are forgotten. False when one that is remembered is older, or younger than `index`, the newest
    /// write of all.
    pub(super) fn set_floor(&mut self, floor: u64, index: u64) -> bool {
        self.floor = floor;
        let oldest = self.by_age.get_min().is_none_or(|(oldest, _)| *oldest >= floor);
        oldest && self.by_age.get_max().is_none_or(|(newest, _)| *newest <= index)
    }

    pub(super) fn len(&self) -> usize {
        self.by_key.len()
    }

    /// All that are gone, in order of name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        self.by_key.iter().map(|(name, index)| (name, *index))
    }

    /// The same without borrowing.
    pub(super) fn into_rows(self) -> impl Iterator<Item = (Arc<str>, u64)> + Send {
        self.by_key.into_iter()
    }

    /// A change older than what is forgotten (the last of a node's checks may be) counts as that old.
    pub(super) fn bury(&mut self, key: Arc<str>, index: u64) {
        let index = index.max(self.floor);
        self.forget(&key);
        self.by_age.insert((index, key.clone()));
        self.by_key.insert(key, index);
        if self.by_key.len() > self.max {
            self.sweep();
        }
    }

    /// The name lives again: its own row carries its indexes from here.
    pub(super) fn forget(&mut self, key: &Arc<str>) {
        if let Some(index) = self.by_key.remove(key) {
            self.by_age.remove(&(index, key.clone()));
        }
    }

    fn sweep(&mut self) {
        for _ in 0..GRAVES_DROPPED_AT_ONCE {
            let Some((index, key)) = self.by_age.remove_min() else { return };
            self.by_key.remove(&key);
            assert!(index >= self.floor, "graves are swept in order of age");
            self.floor = index;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose checks had not changed since before the floor rose was buried below it, and the next sweep stopped
    /// the server.
    #[test]
    fn a_grave_may_be_older_than_what_is_forgotten() {
        let mut graves = Graveyard::new(2 * GRAVES_DROPPED_AT_ONCE);
        let max = 2 * GRAVES_DROPPED_AT_ONCE as u64;
        (1..=max + 1).for_each(|index| graves.bury(index.to_string().into(), index));
        assert!(graves.floor() > 0);
        graves.bury("old".into(), 0);
        assert_eq!(graves.index_of("old"), graves.floor());
        (max + 2..3 * max).for_each(|index| graves.bury(index.to_string().into(), index));
        assert_eq!(graves.index_of("old"), graves.floor());
    }
}
