//! The key space: an ordered persistent tree of live keys and tombstones that knows, for any prefix, the newest change
//! under it in logarithmic time.
//!
//! A weight-balanced tree (Adams; parameters 3 and 2, Hirai and Yamamoto 2011) of shared branches. Each branch carries
//! [`Sums`] over its subtree. Branches nobody else holds are changed in place, others are copied
//! along the path, so a published version is never disturbed.

mod bulk;

use std::cmp::Ordering;
use std::sync::Arc;

use imbl::OrdSet;

use super::limits::{GRAVES_DROPPED_AT_ONCE, KEY_GRAVES_MAX};
use super::model::KvEntry;

pub(super) use bulk::{Grave, OutOfOrder};

/// Live keys and tombstones. See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyTree {
    root: Link,
    graves_by_age: OrdSet<(u64, Arc<[u8]>)>,
    floor: u64,
}

/// What a range of keys says about indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sums {
    /// Newest change, deletions included.
    pub changed: u64,
    /// Newest index that Consul would show: of live keys and of tombstones.
    pub shown: u64,
    /// Whether Consul would find a live key or a tombstone at all.
    pub solid: bool,
}

/// How a key went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Burial {
    /// By its own name: Consul keeps a tombstone of it.
    Own,
    /// With a tree: Consul keeps one tombstone, of the tree's prefix.
    Tree,
}

type Link = Option<Arc<Branch>>;

#[derive(Clone, Debug)]
struct Branch {
    left: Link,
    right: Link,
    slot: Slot,
    size: usize,
    live: usize,
    sums: Sums,
}

#[derive(Clone, Debug)]
enum Slot {
    Live(Arc<KvEntry>),
    /// `changed` is the key's own last change; `sums.changed` also tells of the tree it is the prefix of.
    Gone {
        key: Arc<[u8]>,
        changed: u64,
        sums: Sums,
    },
}

impl KeyTree {
    pub(super) fn get(&self, key: &[u8]) -> Option<&Arc<KvEntry>> {
        match self.slot(key)? {
            Slot::Live(entry) => Some(entry),
            Slot::Gone { .. } => None,
        }
    }

    /// Newest change of one key, alive or not.
    pub(super) fn changed_at(&self, key: &[u8]) -> u64 {
        match self.slot(key) {
            Some(Slot::Live(entry)) => entry.modify_index,
            Some(Slot::Gone { changed, .. }) => (*changed).max(self.floor),
            None => self.floor,
        }
    }

    /// Sums over all keys that start with `prefix`; never below the floor.
    pub(super) fn sums_under(&self, prefix: &[u8]) -> Sums {
        let mut sums = Sums::default();
        let mut link = &self.root;
        while let Some(branch) = link {
            match side(branch.slot.key(), prefix) {
                Ordering::Less => link = &branch.right,
                Ordering::Greater => link = &branch.left,
                Ordering::Equal => {
                    sums.add(branch.slot.sums());
                    sums_from(&branch.left, prefix, &mut sums);
                    sums_to(&branch.right, prefix, &mut sums);
                    break;
                }
            }
        }
        sums.changed = sums.changed.max(self.floor);
        if sums.solid {
            sums.shown = sums.shown.max(self.floor);
        }
        sums
    }

    /// Live entries whose key starts with `prefix`, in key order.
    pub(super) fn under<'a>(&'a self, prefix: &[u8]) -> KeysUnder<'a> {
        let mut walk = KeysUnder { stack: Vec::new(), prefix: prefix.into() };
        walk.descend(&self.root);
        walk
    }

    pub(super) fn len(&self) -> usize {
        self.root.as_ref().map_or(0, |branch| branch.live)
    }

    pub(super) fn put(&mut self, entry: Arc<KvEntry>) {
        self.replace(Slot::Live(entry));
    }

    /// Turns `key` into a tombstone. `index` is the deletion's. The prefix of a deleted tree is buried in its own
    /// name even if it never lived as a key.
    pub(super) fn bury(&mut self, key: &[u8], index: u64, burial: Burial) {
        let before = self.slot(key).map(Slot::sums).unwrap_or_default();
        let changed = match self.slot(key) {
            Some(Slot::Live(_)) => index,
            Some(Slot::Gone { changed, .. }) => *changed,
            None => 0,
        };
        let sums = match burial {
            Burial::Own => Sums { changed: index, shown: index, solid: true },
            Burial::Tree => Sums { changed: index, shown: before.shown, solid: false },
        };
        let key: Arc<[u8]> = key.into();
        self.replace(Slot::Gone { key: key.clone(), changed, sums });
        self.graves_by_age.insert((index, key));
        if self.graves_by_age.len() > KEY_GRAVES_MAX {
            self.sweep();
        }
    }

    fn slot(&self, key: &[u8]) -> Option<&Slot> {
        let mut link = &self.root;
        while let Some(branch) = link {
            match key.cmp(branch.slot.key()) {
                Ordering::Less => link = &branch.left,
                Ordering::Greater => link = &branch.right,
                Ordering::Equal => return Some(&branch.slot),
            }
        }
        None
    }

    fn replace(&mut self, slot: Slot) {
        if let Some(Slot::Gone { key, sums, .. }) = insert(&mut self.root, slot) {
            self.graves_by_age.remove(&(sums.changed, key));
        }
    }

    fn sweep(&mut self) {
        for _ in 0..GRAVES_DROPPED_AT_ONCE {
            let Some((index, key)) = self.graves_by_age.remove_min() else { return };
            assert!(index >= self.floor, "graves are swept in order of age");
            self.floor = index;
            remove(&mut self.root, &key);
        }
    }
}

/// Iterator over live entries under a prefix; see [`super::State::kv_under`].
pub struct KeysUnder<'a> {
    stack: Vec<&'a Branch>,
    prefix: Box<[u8]>,
}

impl<'a> KeysUnder<'a> {
    /// Pushes the path to the first key of interest at or under `link`.
    fn descend(&mut self, mut link: &'a Link) {
        while let Some(branch) = link {
            if branch.live == 0 {
                return;
            }
            match side(branch.slot.key(), &self.prefix) {
                Ordering::Less => link = &branch.right,
                Ordering::Greater => link = &branch.left,
                Ordering::Equal => {
                    self.stack.push(branch);
                    link = &branch.left;
                }
            }
        }
    }
}

impl<'a> Iterator for KeysUnder<'a> {
    type Item = &'a Arc<KvEntry>;

    fn next(&mut self) -> Option<&'a Arc<KvEntry>> {
        loop {
            let branch = self.stack.pop()?;
            self.descend(&branch.right);
            if let Slot::Live(entry) = &branch.slot {
                return Some(entry);
            }
        }
    }
}

impl Sums {
    fn add(&mut self, other: Sums) {
        self.changed = self.changed.max(other.changed);
        self.shown = self.shown.max(other.shown);
        self.solid |= other.solid;
    }
}

impl Slot {
    fn key(&self) -> &[u8] {
        match self {
            Slot::Live(entry) => &entry.key,
            Slot::Gone { key, .. } => key,
        }
    }

    fn sums(&self) -> Sums {
        match self {
            Slot::Live(entry) => Sums { changed: entry.modify_index, shown: entry.modify_index, solid: true },
            Slot::Gone { sums, .. } => *sums,
        }
    }
}

impl Branch {
    fn leaf(slot: Slot) -> Branch {
        let mut branch = Branch { left: None, right: None, slot, size: 0, live: 0, sums: Sums::default() };
        branch.refresh();
        branch
    }

    fn refresh(&mut self) {
        self.size = 1;
        self.live = usize::from(matches!(self.slot, Slot::Live(_)));
        self.sums = self.slot.sums();
        for child in [&self.left, &self.right].into_iter().flatten() {
            self.size += child.size;
            self.live += child.live;
            self.sums.add(child.sums);
        }
    }
}

/// Where `key` lies relative to the range of `prefix`.
fn side(key: &[u8], prefix: &[u8]) -> Ordering {
    if key.starts_with(prefix) { Ordering::Equal } else { key.cmp(prefix) }
}

/// Adds what lies under `prefix` in a subtree that ends inside it.
fn sums_from(mut link: &Link, prefix: &[u8], sums: &mut Sums) {
    while let Some(branch) = link {
        if side(branch.slot.key(), prefix) == Ordering::Less {
            link = &branch.right;
            continue;
        }
        sums.add(branch.slot.sums());
        if let Some(right) = &branch.right {
            sums.add(right.sums);
        }
        link = &branch.left;
    }
}

/// Adds what lies under `prefix` in a subtree that starts inside it.
fn sums_to(mut link: &Link, prefix: &[u8], sums: &mut Sums) {
    while let Some(branch) = link {
        if side(branch.slot.key(), prefix) == Ordering::Greater {
            link = &branch.left;
            continue;
        }
        sums.add(branch.slot.sums());
        if let Some(left) = &branch.left {
            sums.add(left.sums);
        }
        link = &branch.right;
    }
}

fn insert(link: &mut Link, slot: Slot) -> Option<Slot> {
    let Some(shared) = link else {
        *link = Some(Arc::new(Branch::leaf(slot)));
        return None;
    };
    let branch = Arc::make_mut(shared);
    let old = match slot.key().cmp(branch.slot.key()) {
        Ordering::Less => insert(&mut branch.left, slot),
        Ordering::Greater => insert(&mut branch.right, slot),
        Ordering::Equal => Some(std::mem::replace(&mut branch.slot, slot)),
    };
    branch.refresh();
    balance(link);
    old
}

fn remove(link: &mut Link, key: &[u8]) {
    let Some(shared) = link else { return };
    let branch = Arc::make_mut(shared);
    match key.cmp(branch.slot.key()) {
        Ordering::Less => remove(&mut branch.left, key),
        Ordering::Greater => remove(&mut branch.right, key),
        Ordering::Equal if branch.left.is_none() => {
            *link = branch.right.take();
            return;
        }
        Ordering::Equal => match pop_first(&mut branch.right) {
            Some(next) => branch.slot = next,
            None => {
                *link = branch.left.take();
                return;
            }
        },
    }
    branch.refresh();
    balance(link);
}

fn pop_first(link: &mut Link) -> Option<Slot> {
    let branch = Arc::make_mut(link.as_mut()?);
    if let Some(first) = pop_first(&mut branch.left) {
        branch.refresh();
        balance(link);
        return Some(first);
    }
    let slot = branch.slot.clone();
    *link = branch.right.take();
    Some(slot)
}

/// Subtree size plus one: what the balance rule weighs.
fn weight(link: &Link) -> usize {
    link.as_ref().map_or(1, |branch| branch.size + 1)
}

const WEIGHT_RATIO_MAX: usize = 3;
const ROTATION_RATIO: usize = 2;

fn balance(link: &mut Link) {
    let Some(shared) = link else { return };
    let (left, right) = (weight(&shared.left), weight(&shared.right));
    if right > WEIGHT_RATIO_MAX * left {
        let branch = Arc::make_mut(shared);
        let inner = branch.right.as_ref().map_or((1, 1), |b| (weight(&b.left), weight(&b.right)));
        if inner.0 >= ROTATION_RATIO * inner.1 {
            rotate_right(&mut branch.right);
        }
        rotate_left(link);
    } else if left > WEIGHT_RATIO_MAX * right {
        let branch = Arc::make_mut(shared);
        let inner = branch.left.as_ref().map_or((1, 1), |b| (weight(&b.right), weight(&b.left)));
        if inner.0 >= ROTATION_RATIO * inner.1 {
            rotate_left(&mut branch.left);
        }
        rotate_right(link);
    }
}

fn rotate_left(link: &mut Link) {
    let Some(mut down) = link.take() else { return };
    let lower = Arc::make_mut(&mut down);
    let mut up = lower.right.take().expect("a branch turns towards a child it has");
    let upper = Arc::make_mut(&mut up);
    lower.right = upper.left.take();
    lower.refresh();
    upper.left = Some(down);
    upper.refresh();
    *link = Some(up);
}

fn rotate_right(link: &mut Link) {
    let Some(mut down) = link.take() else { return };
    let lower = Arc::make_mut(&mut down);
    let mut up = lower.left.take().expect("a branch turns towards a child it has");
    let upper = Arc::make_mut(&mut up);
    lower.left = upper.right.take();
    lower.refresh();
    upper.right = Some(down);
    upper.refresh();
    *link = Some(up);
}
