//! The key space as a whole: walked in order for a snapshot, and built from rows in order.

use std::sync::Arc;

use super::{Branch, KeyTree, Link, Slot, Sums, WEIGHT_RATIO_MAX, balance, insert, weight};
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

    /// Adds rows behind all others: they are in strictly ascending order of key, and all keys here lie before the first.
    ///
    /// # Errors
    /// They are not; nothing was added.
    pub(in crate::store) fn append(&mut self, rows: Vec<Arc<KvEntry>>) -> Result<(), OutOfOrder> {
        let Some(first) = rows.first() else { return Ok(()) };
        let behind = self.last_key().is_none_or(|last| *last < *first.key);
        if !behind || !rows.is_sorted_by(|one, next| one.key < next.key) {
            return Err(OutOfOrder);
        }
        let more = rows.len() - 1;
        let mut slots = rows.into_iter().map(Slot::Live);
        let middle = slots.next().expect("there is a first row");
        let right = build(&mut slots, more);
        self.root = Some(join(self.root.take(), middle, right));
        Ok(())
    }

    /// Adds a tombstone.
    ///
    /// # Errors
    /// The key is there already; the tree is of no use any more.
    pub(in crate::store) fn add_grave(&mut self, grave: Grave) -> Result<(), OutOfOrder> {
        let Grave { key, own_change, changed, shown, solid } = grave;
        let sums = Sums { changed, shown, solid };
        match insert(&mut self.root, Slot::Gone { key: key.clone(), changed: own_change, sums }) {
            Some(_) => Err(OutOfOrder),
            None => {
                self.graves_by_age.insert((changed, key));
                Ok(())
            }
        }
    }

    /// Says which deletions are forgotten: none that is remembered may be older.
    ///
    /// # Errors
    /// One is, or one is younger than `index`, the newest write of all.
    pub(in crate::store) fn set_floor(&mut self, floor: u64, index: u64) -> Result<(), OutOfOrder> {
        let oldest = self.graves_by_age.get_min().is_none_or(|(oldest, _)| *oldest >= floor);
        let newest = self.graves_by_age.get_max().is_none_or(|(newest, _)| *newest <= index);
        self.floor = floor;
        if oldest && newest { Ok(()) } else { Err(OutOfOrder) }
    }

    fn last_key(&self) -> Option<&[u8]> {
        let mut branch = self.root.as_ref()?;
        while let Some(right) = &branch.right {
            branch = right;
        }
        Some(branch.slot.key())
    }
}

/// What was added does not lie where it should.
#[derive(Debug)]
pub(in crate::store) struct OutOfOrder;

fn push_left(mut link: &Link, wanted: fn(&Branch) -> bool, stack: &mut Vec<Arc<Branch>>) {
    while let Some(branch) = link.as_ref().filter(|branch| wanted(branch)) {
        stack.push(branch.clone());
        link = &branch.left;
    }
}

/// The next `count` slots as a tree: halves differ by at most one, well within the balance rule.
fn build(slots: &mut impl Iterator<Item = Slot>, count: usize) -> Link {
    if count == 0 {
        return None;
    }
    let before = count / 2;
    let left = build(slots, before);
    let slot = slots.next().expect("the caller counted the slots");
    let right = build(slots, count - before - 1);
    Some(branch(left, slot, right))
}

/// One tree of two, with a slot between them: goes down the heavier one until both are in balance (`link` of Adams).
fn join(left: Link, slot: Slot, right: Link) -> Arc<Branch> {
    let (left_weight, right_weight) = (weight(&left), weight(&right));
    let mut joined = if left_weight > WEIGHT_RATIO_MAX * right_weight {
        let mut shared = left.expect("the heavier tree is not empty");
        let top = Arc::make_mut(&mut shared);
        top.right = Some(join(top.right.take(), slot, right));
        top.refresh();
        Some(shared)
    } else if right_weight > WEIGHT_RATIO_MAX * left_weight {
        let mut shared = right.expect("the heavier tree is not empty");
        let top = Arc::make_mut(&mut shared);
        top.left = Some(join(left, slot, top.left.take()));
        top.refresh();
        Some(shared)
    } else {
        return branch(left, slot, right);
    };
    balance(&mut joined);
    joined.expect("a tree in balance has as many branches as before")
}

fn branch(left: Link, slot: Slot, right: Link) -> Arc<Branch> {
    let mut branch = Branch { left, right, slot, size: 0, live: 0, sums: Sums::default() };
    branch.refresh();
    Arc::new(branch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: usize) -> Arc<KvEntry> {
        Arc::new(KvEntry { key: format!("{number:06}").into(), modify_index: 1, ..KvEntry::default() })
    }

    /// Every branch is in balance and sums up what is under it.
    fn check(link: &Link) {
        let Some(top) = link else { return };
        let (left, right) = (weight(&top.left), weight(&top.right));
        assert!(left <= WEIGHT_RATIO_MAX * right && right <= WEIGHT_RATIO_MAX * left, "{left} {right}");
        let mut again = (**top).clone();
        again.refresh();
        assert_eq!((again.size, again.live, again.sums), (top.size, top.live, top.sums));
        check(&top.left);
        check(&top.right);
    }

    #[test]
    fn appended_rows_make_a_tree_in_balance() {
        for step in [1, 2, 3, 7, 100, 1000] {
            let mut tree = KeyTree::default();
            let mut count = 0;
            for round in 0..40 {
                let size = step * (1 + round % 5);
                tree.append((count..count + size).map(row).collect()).unwrap();
                count += size;
                check(&tree.root);
            }
            assert_eq!(tree.len(), count);
            assert!(
                tree.rows().map(|row| row.key.clone()).eq((0..count).map(|number| row(number).key.clone()))
            );
            assert!(tree.append(vec![row(count - 1)]).is_err());
            assert!(tree.append(vec![row(count + 1), row(count)]).is_err());
            assert_eq!(tree.len(), count);
        }
    }
}
