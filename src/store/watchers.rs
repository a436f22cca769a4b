//! Parked queries by topic: finds those that a batch concerns in time that depends on what was touched, not on how
//! many are parked. A plain data structure; each edge core has its own.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::topic::Topic;
use super::touched::Touched;

/// Names one parked query in its registry; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WatchId(u64);

/// Parked queries by topic.
///
/// The order of waking is that of topics and, within one, of age.
#[derive(Debug)]
pub struct Watchers<T> {
    by_topic: BTreeMap<Rc<Topic>, BTreeMap<WatchId, T>>,
    topics: BTreeMap<WatchId, Rc<Topic>>,
    /// How many distinct prefixes of each length are watched.
    prefix_lengths: BTreeMap<usize, usize>,
    next: u64,
}

impl<T> Watchers<T> {
    /// An empty registry.
    pub fn new() -> Watchers<T> {
        Watchers {
            by_topic: BTreeMap::new(),
            topics: BTreeMap::new(),
            prefix_lengths: BTreeMap::new(),
            next: 0,
        }
    }

    /// How many are parked.
    pub fn len(&self) -> usize {
        self.topics.len()
    }

    /// Whether none are parked.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    /// Parks `watcher` on `topic`.
    pub fn insert(&mut self, topic: Topic, watcher: T) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        let topic = topic.folded();
        let topic = match self.by_topic.get_key_value(&topic) {
            Some((shared, _)) => shared.clone(),
            None => {
                if let Topic::KeyPrefix(prefix) = &topic {
                    *self.prefix_lengths.entry(prefix.len()).or_default() += 1;
                }
                Rc::new(topic)
            }
        };
        self.by_topic.entry(topic.clone()).or_default().insert(id, watcher);
        self.topics.insert(id, topic);
        id
    }

    /// Takes one out: its client left or its time is up.
    pub fn remove(&mut self, id: WatchId) -> Option<T> {
        let topic = self.topics.remove(&id)?;
        let parked = self.by_topic.get_mut(&topic).expect("a parked query is listed under its topic");
        let watcher = parked.remove(&id);
        if parked.is_empty() {
            self.by_topic.remove(&topic);
            self.forget_prefix(&topic);
        }
        watcher
    }

    /// Looks at one without taking it out.
    pub fn get(&self, id: WatchId) -> Option<&T> {
        self.by_topic.get(self.topics.get(&id)?)?.get(&id)
    }

    /// Moves those that `touched` concerns into `woken`; they are parked no more.
    pub fn wake(&mut self, touched: &Touched, woken: &mut Vec<T>) {
        if self.is_empty() {
            return;
        }
        if touched.is_all() {
            // Also those on a local service, which find their answer unchanged and park again: a rare event.
            self.wake_all(woken);
            return;
        }
        touched.for_each_topic(|topic| {
            self.wake_topic(topic, woken);
            if let Topic::Key(key) = topic {
                self.wake_prefixes(key, woken);
            }
        });
    }

    /// Moves all into `woken`, oldest first: the state was replaced, or the server stops.
    pub fn wake_all(&mut self, woken: &mut Vec<T>) {
        let ids: Vec<WatchId> = self.topics.keys().copied().collect();
        woken.extend(ids.into_iter().filter_map(|id| self.remove(id)));
    }

    fn wake_topic(&mut self, topic: &Topic, woken: &mut Vec<T>) {
        let Some(parked) = self.by_topic.remove(topic) else { return };
        for (id, watcher) in parked {
            self.topics.remove(&id);
            woken.push(watcher);
        }
        self.forget_prefix(topic);
    }

    fn wake_prefixes(&mut self, key: &[u8], woken: &mut Vec<T>) {
        let mut from = 0;
        while let Some((&length, _)) = self.prefix_lengths.range(from..=key.len()).next() {
            self.wake_topic(&Topic::KeyPrefix(key[..length].into()), woken);
            if length == key.len() {
                return;
            }
            from = length + 1;
        }
    }

    fn forget_prefix(&mut self, topic: &Topic) {
        let Topic::KeyPrefix(prefix) = topic else { return };
        let count =
            self.prefix_lengths.get_mut(&prefix.len()).expect("a watched prefix is counted by its length");
        *count -= 1;
        if *count == 0 {
            self.prefix_lengths.remove(&prefix.len());
        }
    }
}

impl<T> Default for Watchers<T> {
    fn default() -> Watchers<T> {
        Watchers::new()
    }
}
