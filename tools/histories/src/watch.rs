//! Blocking queries: each returns when, and only when, what it asked about has changed after the index it asked with.
//!
//! The judge knows which write changed which key (from a replay of the log) and when each copy showed which index
//! to its readers. From that it computes when a query must have come back and compares.

use std::collections::BTreeMap;

use crate::{Key, Time, Violation};

/// One blocking query at one copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Query {
    /// The copy: one run of one server.
    pub copy: u32,
    /// What it asked about: any of these keys.
    pub keys: Vec<Key>,
    /// The index it asked with.
    pub asked: u64,
    /// When it came to the copy.
    pub arrived: Time,
    /// When it ended.
    pub ended: Time,
    /// How.
    pub end: End,
}

/// How a query ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an answer, because something changed.
    Changed {
        /// Index of the state that the answer was taken from.
        state: u64,
        /// The index that it showed for its keys.
        shown: u64,
    },
    /// Its time was up.
    TimedOut,
    /// The copy, or the test, ended before it.
    Cut,
}

/// What a copy showed to its readers over time.
pub struct Copy {
    /// When which index became visible, both rising.
    pub shown: Vec<(Time, u64)>,
}

/// The truth that queries are judged by.
#[derive(Default)]
pub struct Judge {
    /// Indexes at which each key changed, rising.
    changes: BTreeMap<Key, Vec<u64>>,
    /// Indexes at which everything may have changed.
    sweeps: Vec<u64>,
    copies: BTreeMap<u32, Copy>,
}

impl Judge {
    /// Says that the write at `index` changed `key`. Indexes come in order.
    pub fn changed(&mut self, key: Key, index: u64) {
        let list = self.changes.entry(key).or_default();
        assert!(list.last().is_none_or(|last| *last < index), "changes are told in order");
        list.push(index);
    }

    /// Says that the write at `index` replaced everything.
    pub fn replaced(&mut self, index: u64) {
        self.sweeps.push(index);
    }

    /// Says that a copy showed `index` from `time` on.
    pub fn shown(&mut self, copy: u32, time: Time, index: u64) {
        self.copies.entry(copy).or_insert(Copy { shown: Vec::new() }).shown.push((time, index));
    }

    /// Judges one query. `slack`: how much later than the change an answer may come.
    ///
    /// # Errors
    /// The rule it breaks.
    pub fn check(&self, query: &Query, slack: Time) -> Result<(), Violation> {
        let wrong = |rule, why: String| Err(Violation { rule, story: format!("{query:?}: {why}") });
        let due = self.due(query);
        if let Some((time, index)) = due
            && query.ended > time + slack
        {
            return wrong("no change is missed", format!("due at {time} by the change of index {index}"));
        }
        let End::Changed { state, shown } = query.end else { return Ok(()) };
        let Some(change) = self.last_change(query, state) else {
            return wrong("no wake without a change", format!("nothing changed up to index {state}"));
        };
        if shown < change {
            return wrong("the index covers the change", format!("the keys changed at {change}"));
        }
        if shown > state {
            return wrong("the index is not ahead of the state", String::new());
        }
        if self.visible(query.copy, query.ended) < state {
            return wrong("answers come from what is shown", String::new());
        }
        Ok(())
    }

    /// When the query had to come back, and for which change.
    fn due(&self, query: &Query) -> Option<(Time, u64)> {
        let change = self.first_change(query)?;
        let shown = &self.copies.get(&query.copy)?.shown;
        let place = shown.partition_point(|(_, index)| *index < change);
        let (time, _) = shown.get(place)?;
        Some(((*time).max(query.arrived), change))
    }

    /// The first change after the index asked with.
    fn first_change(&self, query: &Query) -> Option<u64> {
        let first = |list: &Vec<u64>| list.get(list.partition_point(|index| *index <= query.asked)).copied();
        let lists = query.keys.iter().filter_map(|key| self.changes.get(key)).chain([&self.sweeps]);
        lists.filter_map(first).min()
    }

    /// The last change after the index asked with and not after `state`.
    fn last_change(&self, query: &Query, state: u64) -> Option<u64> {
        let last = |list: &Vec<u64>| {
            let end = list.partition_point(|index| *index <= state);
            list[..end].last().copied().filter(|index| *index > query.asked)
        };
        let lists = query.keys.iter().filter_map(|key| self.changes.get(key)).chain([&self.sweeps]);
        lists.filter_map(last).max()
    }

    fn visible(&self, copy: u32, time: Time) -> u64 {
        let Some(copy) = self.copies.get(&copy) else { return 0 };
        let place = copy.shown.partition_point(|(when, _)| *when <= time);
        place.checked_sub(1).map_or(0, |place| copy.shown[place].1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Key 1 changes at 5 and 9, key 2 at 7. Copy 0 shows index n at time 10 * n.
    fn judge() -> Judge {
        let mut judge = Judge::default();
        judge.changed(1, 5);
        judge.changed(1, 9);
        judge.changed(2, 7);
        (1..=12).for_each(|index| judge.shown(0, index * 10, index));
        judge
    }

    fn query(keys: &[Key], asked: u64, arrived: Time, ended: Time, end: End) -> Query {
        Query { copy: 0, keys: keys.to_vec(), asked, arrived, ended, end }
    }

    fn rule(query: &Query) -> &'static str {
        judge().check(query, 0).expect_err("a query that went wrong").rule
    }

    #[test]
    fn a_query_returns_with_its_change_and_waits_without() {
        let judge = judge();
        for good in [
            query(&[1], 5, 60, 90, End::Changed { state: 9, shown: 9 }),
            query(&[1], 4, 60, 60, End::Changed { state: 6, shown: 5 }),
            query(&[2], 7, 60, 1000, End::TimedOut),
            query(&[1, 2], 5, 60, 70, End::Changed { state: 7, shown: 7 }),
            query(&[1], 5, 60, 85, End::Cut),
            query(&[3], 0, 0, 1000, End::TimedOut),
        ] {
            assert_eq!(judge.check(&good, 0), Ok(()));
        }
    }

    #[test]
    fn a_missed_change_is_found() {
        assert_eq!(rule(&query(&[1], 5, 60, 100, End::TimedOut)), "no change is missed");
        assert_eq!(rule(&query(&[1], 5, 60, 91, End::Changed { state: 9, shown: 9 })), "no change is missed");
        // It was there before the query came.
        assert_eq!(rule(&query(&[1], 4, 60, 70, End::TimedOut)), "no change is missed");
        assert_eq!(rule(&query(&[1], 5, 60, 2000, End::Cut)), "no change is missed");
    }

    #[test]
    fn a_wake_without_a_change_is_found() {
        let woken = query(&[1], 5, 60, 70, End::Changed { state: 7, shown: 7 });
        assert_eq!(rule(&woken), "no wake without a change");
        let backwards = query(&[1], 9, 60, 70, End::Changed { state: 7, shown: 5 });
        assert_eq!(rule(&backwards), "no wake without a change");
    }

    #[test]
    fn an_index_that_lies_is_found() {
        let behind = query(&[1], 5, 60, 90, End::Changed { state: 9, shown: 5 });
        assert_eq!(rule(&behind), "the index covers the change");
        let ahead = query(&[1], 5, 60, 90, End::Changed { state: 9, shown: 10 });
        assert_eq!(rule(&ahead), "the index is not ahead of the state");
        let early = query(&[1], 5, 60, 80, End::Changed { state: 9, shown: 9 });
        assert_eq!(rule(&early), "answers come from what is shown");
    }

    #[test]
    fn a_replaced_store_wakes_all() {
        let mut judge = judge();
        judge.replaced(11);
        assert_eq!(judge.check(&query(&[3], 4, 60, 110, End::Changed { state: 11, shown: 11 }), 0), Ok(()));
        assert!(judge.check(&query(&[3], 4, 60, 120, End::TimedOut), 0).is_err());
    }
}
