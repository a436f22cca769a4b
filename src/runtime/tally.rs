//! Counts that all cores of the agent share, for limits that hold for the agent and not for each core.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of something each key holds, over all cores. Clones are handles to the same counts.
///
/// Behind one lock, held for a look-up: for what happens once in the life of a connection, not for each request.
pub struct Tally<K: Hash + Eq>(Arc<Mutex<HashMap<K, usize>>>);

impl<K: Hash + Eq + Clone> Tally<K> {
    /// Nobody holds anything.
    pub fn new() -> Tally<K> {
        Tally(Arc::default())
    }

    /// Takes one for `key` unless it holds `max` already (`None`: as many as it likes).
    pub fn take(&self, key: K, max: Option<usize>) -> Option<Share<K>> {
        let mut counts = lock(&self.0);
        let count = counts.entry(key.clone()).or_default();
        if max.is_some_and(|max| *count >= max) {
            if *count == 0 {
                counts.remove(&key);
            }
            return None;
        }
        *count += 1;
        Some(Share { counts: self.0.clone(), key })
    }

    /// How many a key holds now.
    pub fn count(&self, key: &K) -> usize {
        lock(&self.0).get(key).copied().unwrap_or_default()
    }
}

impl<K: Hash + Eq + Clone> Default for Tally<K> {
    fn default() -> Tally<K> {
        Tally::new()
    }
}

impl<K: Hash + Eq> Clone for Tally<K> {
    fn clone(&self) -> Tally<K> {
        Tally(self.0.clone())
    }
}

/// One that a key holds; dropping it gives it back, on whichever core.
pub struct Share<K: Hash + Eq> {
    counts: Arc<Mutex<HashMap<K, usize>>>,
    key: K,
}

impl<K: Hash + Eq> Drop for Share<K> {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

/// A holder that panicked left whole counts behind: every change of them is one step.
fn lock<K>(counts: &Mutex<HashMap<K, usize>>) -> std::sync::MutexGuard<'_, HashMap<K, usize>> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_holds_over_all_handles_and_shares_come_back() {
        let tally = Tally::new();
        let shares: Vec<_> = (0..4)
            .map(|_| {
                let tally = tally.clone();
                std::thread::spawn(move || tally.take("a", Some(3))).join().unwrap()
            })
            .collect();
        assert_eq!(shares.iter().filter(|share| share.is_some()).count(), 3);
        assert!(tally.take("b", Some(3)).is_some(), "others have counts of their own");
        drop(shares);
        assert_eq!(tally.count(&"a"), 0);
        assert!(tally.take("a", Some(1)).is_some());
        assert!(tally.take("c", Some(0)).is_none());
        assert!(lock(&tally.0).is_empty(), "who holds nothing costs nothing");
    }

    #[test]
    fn without_a_limit_all_are_counted() {
        let tally = Tally::new();
        let _shares: Vec<_> = (0..1000).map(|_| tally.take(1, None).unwrap()).collect();
        assert_eq!(tally.count(&1), 1000);
    }
}
