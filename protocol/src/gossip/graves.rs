//! What remains of members that were pruned or reaped: a name and an incarnation. Nobody's old state brings them back; only they themselves
//! can return, with a higher incarnation. It travels with the full state, so that all forget what one was told to forget.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::settings::TOMBSTONES_MAX;
use crate::entry::Now;

/// The tombstones.
#[derive(Debug, Default)]
pub(super) struct Graves {
    graves: BTreeMap<Arc<str>, Grave>,
    order: BTreeSet<(Now, Arc<str>)>,
}

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grave {
    /// Incarnations up to this one stay gone.
    pub incarnation: u64,
    /// When it is forgotten.
    pub forget_at: Now,
}

impl Graves {
    /// Remembers that a member is gone for good. The one that would be forgotten first makes room.
    pub fn dig(&mut self, name: &Arc<str>, grave: Grave) {
        let before = self.open(name);
        let incarnation = before.map_or(0, |before| before.incarnation).max(grave.incarnation);
        self.graves.insert(name.clone(), Grave { incarnation, ..grave });
        self.order.insert((grave.forget_at, name.clone()));
        if self.graves.len() > TOMBSTONES_MAX
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.graves.remove(&oldest);
        }
        debug_assert_eq!(self.graves.len(), self.order.len());
    }

    /// The member has returned.
    pub fn open(&mut self, name: &str) -> Option<Grave> {
        let (name, grave) = self.graves.remove_entry(name)?;
        self.order.remove(&(grave.forget_at, name));
        Some(grave)
    }

    /// The tombstone of a member.
    pub fn get(&self, name: &str) -> Option<&Grave> {
        self.graves.get(name)
    }

    /// All, in order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Grave)> {
        self.graves.iter()
    }

    /// When the next is forgotten.
    pub fn next_forgotten(&self) -> Option<Now> {
        self.order.first().map(|(at, _)| *at)
    }

    /// Forgets what is due.
    pub fn forget(&mut self, now: Now) {
        while self.next_forgotten().is_some_and(|at| at <= now) {
            if let Some((_, name)) = self.order.pop_first() {
                self.graves.remove(&name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn grave(incarnation: u64, secs: u64) -> Grave {
        Grave { incarnation, forget_at: Duration::from_secs(secs) }
    }

    #[test]
    fn the_highest_incarnation_stays_and_all_are_forgotten_in_time() {
        let mut graves = Graves::default();
        graves.dig(&"a".into(), grave(5, 10));
        graves.dig(&"a".into(), grave(3, 20));
        assert_eq!(graves.get("a"), Some(&grave(5, 20)));
        graves.dig(&"b".into(), grave(1, 15));
        graves.forget(Duration::from_secs(15));
        assert_eq!((graves.get("b"), graves.iter().count()), (None, 1));
        assert_eq!(graves.open("a"), Some(grave(5, 20)));
        assert_eq!(graves.next_forgotten(), None);
    }

    #[test]
    fn there_are_no_more_than_fit() {
        let mut graves = Graves::default();
        for number in 0..=TOMBSTONES_MAX {
            graves.dig(&format!("{number}").into(), grave(1, 10 + number as u64));
        }
        assert_eq!(graves.iter().count(), TOMBSTONES_MAX);
        assert_eq!(graves.get("0"), None);
    }
}
