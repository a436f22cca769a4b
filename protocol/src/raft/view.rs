//! What Raft knows of the log: which terms its entries have, and about how many bytes they are. Never their bodies.

use std::collections::VecDeque;

/// What an entry costs beside its body, in memory, in a frame and on disk, bytes.
const ENTRY_BYTES: u64 = 48;

/// Sizes are marked about this often, bytes: ranges of entries are measured this coarsely.
const GRAIN_BYTES: u64 = 8 << 10;

/// A place in a log. Orders as Raft compares logs: first by term (thesis, section 3.6.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Term of the entry.
    pub term: u64,
    /// Its index; 0 is before the first.
    pub index: u64,
}

impl Position {
    /// The place of an entry.
    pub fn new(index: u64, term: u64) -> Position {
        Position { term, index }
    }
}

/// The shape of a log: runs of entries of one term, and marks that tell how many bytes lie between them.
///
/// Invariant: terms never decrease along the log, so a run is told by its first entry alone.
#[derive(Clone, Debug, Default)]
pub struct LogView {
    /// The entry before the first: the last of the snapshot, or of what was cut off.
    base: Position,
    /// First entry of each run of one term, in order.
    runs: Vec<Position>,
    last_index: u64,
    /// Indexes with the bytes of all entries up to there, since the log was made; ascending in both.
    marks: VecDeque<(u64, u64)>,
    /// Bytes of all entries up to the last.
    total: u64,
}

impl LogView {
    /// A log without entries behind `base` (of a snapshot, or [`Position::default`]).
    pub fn new(base: Position) -> LogView {
        LogView {
            base,
            last_index: base.index,
            marks: VecDeque::from([(base.index, 0)]),
            ..LogView::default()
        }
    }

    /// Adds the next entry; its body has so many bytes.
    ///
    /// # Panics
    /// Its index is not the next, or its term is older than that of the entry before.
    pub fn push(&mut self, at: Position, bytes: usize) {
        assert_eq!(at.index, self.last_index + 1, "entries follow each other");
        let last = self.last();
        assert!(at.term >= last.term, "terms never decrease: {at:?} after {last:?}");
        if self.runs.is_empty() || at.term > last.term {
            self.runs.push(at);
        }
        let cost = bytes as u64 + ENTRY_BYTES;
        let marked = self.marks.back().map_or(0, |(_, total)| *total);
        if self.total > marked && self.total + cost - marked > GRAIN_BYTES {
            self.marks.push_back((self.last_index, self.total));
        }
        self.last_index = at.index;
        self.total += cost;
    }

    /// The last entry; the base when there is none.
    pub fn last(&self) -> Position {
        Position { term: self.runs.last().unwrap_or(&self.base).term, index: self.last_index }
    }

    /// The entry before the first one that is kept.
    pub fn base(&self) -> Position {
        self.base
    }

    /// The term of an entry that is kept, or of the base.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index < self.base.index || index > self.last_index {
            return None;
        }
        let run = self.runs.partition_point(|run| run.index <= index);
        Some(if run == 0 { self.base.term } else { self.runs[run - 1].term })
    }

    /// Whether this very entry is in the log, or is its base.
    pub fn holds(&self, at: Position) -> bool {
        self.term_at(at.index) == Some(at.term)
    }

    /// The last place at or before `at`, and not before the base, whose term is not newer than `at`'s. Only there, or
    /// before, can this log agree with one whose entry at `at` is of that term and whose terms before are not newer.
    pub fn last_not_after(&self, at: Position) -> Position {
        let newer = self.runs.partition_point(|run| run.term <= at.term);
        let end = self.runs.get(newer).map_or(self.last_index, |run| run.index - 1);
        let index = end.min(at.index).max(self.base.index);
        Position { term: self.term_at(index).expect("between base and last"), index }
    }

    /// Takes away the entries from `from` on.
    ///
    /// # Panics
    /// It lies at or before the base.
    pub fn truncate(&mut self, from: u64) {
        assert!(from > self.base.index, "entry {from} is not in the log, which begins after {:?}", self.base);
        self.runs.truncate(self.runs.partition_point(|run| run.index < from));
        // Rather too much than too little, where it falls between two marks.
        let mark = self.marks.partition_point(|(mark, _)| *mark < from - 1);
        self.total = self.marks.get(mark).map_or(self.total, |(_, total)| *total);
        self.last_index = self.last_index.min(from - 1);
        while self.marks.back().is_some_and(|(index, _)| *index >= from) {
            self.marks.pop_back();
        }
    }

    /// Forgets the entries before `first_kept`.
    ///
    /// # Panics
    /// The log does not reach there.
    pub fn cut(&mut self, first_kept: u64) {
        let Some(index) = first_kept.checked_sub(1).filter(|index| *index > self.base.index) else { return };
        let term = self.term_at(index).expect("the log reaches what it is cut behind");
        self.base = Position { term, index };
        let gone = self.runs.partition_point(|run| run.index <= index);
        let rest = self.runs.get(gone).map_or(self.last_index + 1, |run| run.index);
        self.runs.drain(..gone);
        if rest > first_kept {
            self.runs.insert(0, Position { term, index: first_kept });
        }
        while self.marks.get(1).is_some_and(|(mark, _)| *mark <= index) {
            self.marks.pop_front();
        }
    }

    /// The last index of a range that begins at `first` and has at most about so many bytes; at least `first` itself.
    pub fn range_within(&self, first: u64, bytes_max: u64) -> u64 {
        let limit = self.total_before(first) + bytes_max;
        if self.total <= limit {
            return self.last_index;
        }
        let within = self.marks.partition_point(|(_, total)| *total <= limit);
        within.checked_sub(1).map_or(first, |mark| self.marks[mark].0.max(first))
    }

    /// About how many bytes the entries after `after` and up to `last` are.
    pub fn bytes(&self, after: u64, last: u64) -> u64 {
        let end = if last >= self.last_index { self.total } else { self.total_before(last + 1) };
        end.saturating_sub(self.total_before(after + 1))
    }

    /// Bytes up to the last mark before an entry.
    fn total_before(&self, index: u64) -> u64 {
        if index > self.last_index {
            return self.total;
        }
        let mark = self.marks.partition_point(|(mark, _)| *mark < index);
        mark.checked_sub(1).map_or(0, |mark| self.marks[mark].1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn log(base: Position, terms: &[u64]) -> LogView {
        let mut log = LogView::new(base);
        for (place, term) in terms.iter().enumerate() {
            log.push(Position::new(base.index + 1 + place as u64, *term), 10);
        }
        log
    }

    #[test]
    fn terms_are_found_and_hints_jump_over_runs() {
        let log = log(Position::new(10, 2), &[2, 2, 4, 4, 4, 7]);
        assert_eq!([10, 11, 12, 13, 15, 16].map(|i| log.term_at(i).unwrap()), [2, 2, 2, 4, 4, 7]);
        assert_eq!((log.term_at(9), log.term_at(17)), (None, None));
        for (at, hint) in [
            (Position::new(20, 9), Position::new(16, 7)),
            (Position::new(16, 6), Position::new(15, 4)),
            (Position::new(14, 4), Position::new(14, 4)),
            (Position::new(15, 3), Position::new(12, 2)),
            (Position::new(15, 1), Position::new(10, 2)),
            (Position::new(3, 9), Position::new(10, 2)),
        ] {
            assert_eq!(log.last_not_after(at), hint, "{at:?}");
        }
    }

    #[test]
    fn large_entries_go_alone_and_small_ones_together() {
        let mut log = LogView::new(Position::default());
        for index in 1..=1000 {
            log.push(Position::new(index, 1), if index == 500 { 1 << 20 } else { 100 });
        }
        let end = log.range_within(1, 32 << 10);
        assert!((32 << 10) / 148 - 60 < end && end <= (32 << 10) / 148, "{end}");
        assert_eq!(log.range_within(490, 32 << 10), 499);
        assert_eq!(log.range_within(500, 32 << 10), 500);
        assert_eq!(log.range_within(999, 32 << 10), 1000);
    }

    proptest! {
        /// Against a plain list of terms and sizes, under pushes, truncations and cuts.
        #[test]
        fn behaves_as_a_plain_list(steps in proptest::collection::vec((0u8..8, 0u64..40, 0usize..6000), 1..80)) {
            let mut view = LogView::new(Position::default());
            let (mut base, mut list) = (Position::default(), Vec::<(u64, u64)>::new());
            let mut vague = 2 * GRAIN_BYTES;
            for (what, amount, size) in steps {
                let last = base.index + list.len() as u64;
                match what {
                    0 => {
                        let from = (base.index + 1 + amount).min(last + 1);
                        view.truncate(from);
                        vague += GRAIN_BYTES;
                        list.truncate((from - base.index - 1) as usize);
                    }
                    1 => {
                        let index = (base.index + amount).min(last);
                        let term = view.term_at(index).unwrap();
                        view.cut(index + 1);
                        list.drain(..(index - base.index) as usize);
                        base = Position::new(index, term);
                    }
                    _ => {
                        let term = view.last().term + u64::from(what == 2);
                        view.push(Position::new(last + 1, term), size);
                        list.push((term, size as u64 + ENTRY_BYTES));
                    }
                }
                let last = base.index + list.len() as u64;
                prop_assert_eq!(view.base(), base);
                prop_assert_eq!(view.last().index, last);
                for (place, (term, _)) in list.iter().enumerate() {
                    prop_assert_eq!(view.term_at(base.index + 1 + place as u64), Some(*term));
                }
                for first in base.index + 1..=last {
                    let end = view.range_within(first, 10_000);
                    prop_assert!(first <= end && end <= last);
                    let range = &list[(first - base.index - 1) as usize..(end - base.index) as usize];
                    let bytes: u64 = range.iter().map(|(_, bytes)| bytes).sum();
                    prop_assert!(range.len() == 1 || bytes <= 10_000, "{} bytes", bytes);
                    let told = view.bytes(first - 1, end);
                    prop_assert!(told.abs_diff(bytes) <= vague, "{} for {}", told, bytes);
                }
            }
        }
    }
}
