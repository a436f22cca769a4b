//! What Raft knows of the log: which terms its entries have, and about how many bytes they are. Never their bodies.

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
#[derive(Clone, Debug, Default)]
pub struct LogView {
    /// The entry before the first: the last of the snapshot, or of what was cut off.
    base: Position,
    /// First entry of each run of one term, in order.
    runs: Vec<Position>,
    last_index: u64,
}

impl LogView {
    /// A log without entries behind `base` (of a snapshot, or [`Position::default`]).
    pub fn new(base: Position) -> LogView {
        LogView { base, runs: Vec::new(), last_index: base.index }
    }

    /// Adds the next entry; its body has so many bytes.
    ///
    /// # Panics
    /// Its index is not the next, or its term is older than that of the entry before.
    pub fn push(&mut self, at: Position, bytes: usize) {
        let _ = bytes;
        assert_eq!(at.index, self.last_index + 1, "entries follow each other");
        let last = self.last();
        assert!(at.term >= last.term, "terms never decrease: {at:?} after {last:?}");
        if self.runs.is_empty() || at.term > last.term {
            self.runs.push(at);
        }
        self.last_index = at.index;
    }

    /// The last entry; the base when there is none.
    pub fn last(&self) -> Position {
        Position { term: self.runs.last().unwrap_or(&self.base).term, index: self.last_index }
    }
}
