//! The newest entries of the log in memory, for the state and for followers that keep up.

use std::collections::VecDeque;

use muster_protocol::entry::Entry;

/// A run of entries without a gap.
#[derive(Debug, Default)]
pub(super) struct EntryCache {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl EntryCache {
    /// Adds entries; those with the same indexes and all behind them go first. A gap empties what was there.
    pub fn append(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        self.truncate(first);
        if self.next_index().is_some_and(|next| next != first) {
            self.clear();
        }
        self.bytes += entries.iter().map(weight).sum::<usize>();
        self.entries.extend(entries);
    }

    /// The entry at an index.
    pub fn get(&self, index: u64) -> Option<&Entry> {
        let first = self.entries.front()?.index;
        self.entries.get(usize::try_from(index.checked_sub(first)?).ok()?)
    }

    /// Entries `from..=to`; `None` unless all of them are here.
    pub fn range(&self, from: u64, to: u64) -> Option<Vec<Entry>> {
        let first = self.entries.front()?.index;
        let start = usize::try_from(from.checked_sub(first)?).ok()?;
        let end = usize::try_from((to + 1).checked_sub(first)?).ok()?;
        (start <= end && end <= self.entries.len()).then(|| self.entries.range(start..end).cloned().collect())
    }

    /// Drops the oldest entries until the rest weighs at most `bytes_max`, but none after `keep_after`.
    pub fn shrink(&mut self, bytes_max: usize, keep_after: u64) {
        while self.bytes > bytes_max && self.entries.front().is_some_and(|entry| entry.index <= keep_after) {
            self.pop_front();
        }
    }

    /// Drops the entries up to an index.
    pub fn drop_to(&mut self, index: u64) {
        while self.entries.front().is_some_and(|entry| entry.index <= index) {
            self.pop_front();
        }
    }

    /// Drops all.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }

    fn truncate(&mut self, from: u64) {
        while self.entries.back().is_some_and(|entry| entry.index >= from) {
            let gone = self.entries.pop_back();
            self.bytes -= gone.as_ref().map_or(0, weight);
        }
    }

    fn pop_front(&mut self) {
        let gone = self.entries.pop_front();
        self.bytes -= gone.as_ref().map_or(0, weight);
    }

    fn next_index(&self) -> Option<u64> {
        self.entries.back().map(|entry| entry.index + 1)
    }
}

/// What an entry takes, bytes.
pub(super) fn weight(entry: &Entry) -> usize {
    size_of::<Entry>() + entry.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use muster_protocol::entry::EntryKind;

    fn entries(term: u64, indexes: std::ops::RangeInclusive<u64>) -> Vec<Entry> {
        let body = Bytes::from_static(&[7; 100]);
        indexes
            .map(|index| Entry { term, index, kind: EntryKind::Command, version: 1, body: body.clone() })
            .collect()
    }

    #[test]
    fn a_newer_leaders_entries_replace_what_follows() {
        let mut cache = EntryCache::default();
        cache.append(entries(1, 5..=9));
        cache.append(entries(2, 7..=8));
        assert_eq!(cache.range(5, 9), None);
        let terms: Vec<u64> =
            cache.range(5, 8).expect("all are here").iter().map(|entry| entry.term).collect();
        assert_eq!(terms, [1, 1, 2, 2]);
        assert_eq!(cache.get(4), None);
        assert_eq!(cache.range(4, 6), None);
        cache.append(entries(3, 20..=20));
        assert_eq!(cache.get(8), None, "a gap leaves nothing before it");
    }

    #[test]
    fn what_is_not_applied_yet_stays_whatever_it_weighs() {
        let mut cache = EntryCache::default();
        cache.append(entries(1, 1..=10));
        cache.shrink(0, 6);
        assert_eq!((cache.get(6), cache.get(7).map(|entry| entry.index)), (None, Some(7)));
        cache.shrink(2 * weight(&entries(1, 1..=1)[0]), 10);
        assert_eq!(cache.range(9, 10).map(|entries| entries.len()), Some(2));
        assert_eq!(cache.get(8), None);
        cache.drop_to(9);
        assert_eq!(cache.get(9), None);
        cache.clear();
        assert_eq!((cache.bytes, cache.range(10, 10)), (0, None));
    }
}
