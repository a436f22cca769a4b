//! The key space as a whole: walked in order for a snapshot, and built at once from rows in order.

use std::sync::Arc;

use imbl::OrdSet;

use super::{Branch, KeyTree, Link, Slot, Sums};
use crate::store::model::KvEntry;

/// A tombstone.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) struct Grave {
    /// The key that is gone.
    pub key: Arc<[u8]>,
    /// The key's own last change.
    pub own_change: u64,
    /// The same or that of the tree it is the prefix of.
    pub changed: u64,
    /// See [`Sums`].
    pub shown: u64,
    /// See [`Sums`].
    pub solid: bool,
}

/// A key on its way into a tree.
#[derive(Clone, Debug)]
pub(in crate::store) struct Place(Slot);

impl Place {
    pub(in crate::store) fn live(row: KvEntry) -> Place {
        Place(Slot::Live(Arc::new(row)))
    }

    pub(in crate::store) fn gone(grave: Grave) -> Place {
        let sums = Sums { changed: grave.changed, shown: grave.shown, solid: grave.solid };
        Place(Slot::Gone { key: grave.key, changed: grave.own_change, sums })
    }

    /// Of a tombstone: the index by which its age counts.
    pub(in crate::store) fn grave_index(&self) -> Option<u64> {
        match &self.0 {
            Slot::Live(_) => None,
            Slot::Gone { sums, .. } => Some(sums.changed),
        }
    }

    pub(in crate::store) fn key(&self) -> &[u8] {
        self.0.key()
    }
}

impl KeyTree {
    /// Newest deletion that is forgotten.
    pub(in crate::store) fn floor(&self) -> u64 {
        self.floor
    }

    /// How many tombstones there are.
    pub(in crate::store) fn graves_len(&self) -> usize {
        self.graves_by_age.len()
    }

    /// All tombstones, in order of key.
    pub(in crate::store) fn graves(&self) -> impl Iterator<Item = Grave> + Send + use<> {
        self.walk(|branch| branch.live < branch.size).filter_map(|branch| match &branch.slot {
            Slot::Live(_) => None,
            Slot::Gone { key, changed, sums } => Some(Grave {
                key: key.clone(),
                own_change: *changed,
                changed: sums.changed,
                shown: sums.shown,
                solid: sums.solid,
            }),
        })
    }

    /// All live rows, in order of key. The iterator holds this version of the tree by itself.
    pub(in crate::store) fn rows(&self) -> impl Iterator<Item = Arc<KvEntry>> + Send + use<> {
        self.walk(|branch| branch.live > 0).filter_map(|branch| match &branch.slot {
            Slot::Live(row) => Some(row.clone()),
            Slot::Gone { .. } => None,
        })
    }

    /// All branches in order but for those under which nothing is `wanted`.
    fn walk(&self, wanted: fn(&Branch) -> bool) -> impl Iterator<Item = Arc<Branch>> + Send + use<> {
        let mut stack = Vec::new();
        push_left(&self.root, wanted, &mut stack);
        std::iter::from_fn(move || {
            let branch = stack.pop()?;
            push_left(&branch.right, wanted, &mut stack);
            Some(branch)
        })
    }

    /// A balanced tree of `places`, which are in strictly ascending order of key.
    pub(in crate::store) fn of(places: Vec<Place>, floor: u64) -> KeyTree {
        debug_assert!(places.is_sorted_by(|one, next| one.key() < next.key()));
        let graves_by_age: OrdSet<_> = places
            .iter()
            .filter_map(|place| match &place.0 {
                Slot::Live(_) => None,
                Slot::Gone { key, sums, .. } => Some((sums.changed, key.clone())),
            })
            .collect();
        let count = places.len();
        KeyTree { root: build(&mut places.into_iter(), count), graves_by_age, floor }
    }
}

fn push_left(mut link: &Link, wanted: fn(&Branch) -> bool, stack: &mut Vec<Arc<Branch>>) {
    while let Some(branch) = link.as_ref().filter(|branch| wanted(branch)) {
        stack.push(branch.clone());
        link = &branch.left;
    }
}

/// The next `count` places as a tree: halves differ by at most one, well within the balance rule.
fn build(places: &mut impl Iterator<Item = Place>, count: usize) -> Link {
    if count == 0 {
        return None;
    }
    let before = count / 2;
    let left = build(places, before);
    let Place(slot) = places.next().expect("the caller counted the places");
    let right = build(places, count - before - 1);
    let mut branch = Branch { left, right, slot, size: 0, live: 0, sums: Sums::default() };
    branch.refresh();
    Some(Arc::new(branch))
}
