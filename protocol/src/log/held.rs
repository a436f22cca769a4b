//! Which entries the log holds and where they lie. Per frame, not per entry.

use std::collections::VecDeque;

/// A frame on the disk, or on its way there, with the entries in it that are still part of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub sequence: u64,
    pub segment: u64,
    pub block: u32,
    /// With its padding.
    pub bytes: u32,
    pub first: u64,
    pub last: u64,
}

/// The log as appended (`terms`, `first`, `last`), and as placed on the disk (`frames`), which lags behind.
#[derive(Clone, Debug)]
pub(super) struct Held {
    frames: VecDeque<Frame>,
    terms: Vec<(u64, u64)>,
    first: u64,
    last: u64,
    /// Last entry of the newest snapshot: (index, term).
    base: (u64, u64),
}

impl Held {
    /// Nothing but a snapshot.
    pub fn new(base: (u64, u64)) -> Held {
        Held { frames: VecDeque::new(), terms: Vec::new(), first: base.0 + 1, last: base.0, base }
    }

    pub fn first(&self) -> u64 {
        self.first
    }

    pub fn last(&self) -> u64 {
        self.last
    }

    pub fn base(&self) -> (u64, u64) {
        self.base
    }

    pub fn terms(&self) -> &[(u64, u64)] {
        &self.terms
    }

    pub fn frames(&self) -> &VecDeque<Frame> {
        &self.frames
    }

    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.0 {
            return Some(self.base.1);
        }
        if index < self.first || index > self.last {
            return None;
        }
        let after = self.terms.partition_point(|run| run.0 <= index);
        after.checked_sub(1).map(|run| self.terms[run].1)
    }

    /// Takes the next entry.
    pub fn push(&mut self, index: u64, term: u64) {
        assert_eq!(index, self.last + 1, "entries are appended without a gap");
        let before = self.terms.last().map_or(0, |run| run.1);
        assert!(term >= before, "terms never fall along the log");
        if term > before {
            self.terms.push((index, term));
        }
        self.last = index;
    }

    /// Takes entries `first..=last` of one term.
    pub fn push_run(&mut self, first: u64, last: u64, term: u64) {
        if first <= last {
            self.push(first, term);
            self.last = last;
        }
    }

    /// Forgets all from `index` on. Frames follow when what replaces them is placed.
    pub fn truncate(&mut self, index: u64) {
        self.terms.truncate(self.terms.partition_point(|run| run.0 < index));
        self.last = self.last.min(index - 1);
        self.first = self.first.min(index);
    }

    /// Takes a frame as the disk will have it: it replaces all from its first index on, or all if `reset`.
    pub fn place(&mut self, frame: Frame, reset: bool) {
        if reset {
            self.frames.clear();
        }
        while self.frames.back().is_some_and(|back| back.first >= frame.first) {
            self.frames.pop_back();
        }
        if let Some(back) = self.frames.back_mut() {
            back.last = back.last.min(frame.first - 1);
        }
        self.frames.push_back(frame);
    }

    /// Begins anew behind a snapshot that the log does not reach.
    pub fn reset(&mut self, base: (u64, u64)) {
        *self = Held::new(base);
    }

    /// A newer snapshot of what the log holds.
    pub fn rebase(&mut self, base: (u64, u64)) {
        assert!(self.first <= base.0 + 1 && base.0 <= self.last, "the log goes on where the snapshot ends");
        self.base = base;
    }

    /// The frame that holds a placed index.
    pub fn frame_of(&self, index: u64) -> Option<usize> {
        let after = self.frames.partition_point(|frame| frame.first <= index);
        after.checked_sub(1).filter(|place| self.frames[*place].last >= index)
    }

    /// Whether a segment holds no entry from `cut` on.
    pub fn is_done_with(&self, segment: u64, cut: u64) -> bool {
        let after = self.frames.partition_point(|frame| frame.segment <= segment);
        after.checked_sub(1).is_none_or(|place| {
            let frame = self.frames[place];
            frame.segment < segment || frame.last < cut
        })
    }

    /// Forgets the frames of segments up to this one, and the entries in them.
    pub fn drop_through(&mut self, segment: u64) {
        while self.frames.front().is_some_and(|front| front.segment <= segment) {
            let gone = self.frames.pop_front().map_or(0, |frame| frame.last);
            self.first = self.first.max(gone + 1);
        }
        let before = self.terms.partition_point(|run| run.0 <= self.first);
        if before > 1 {
            self.terms.drain(..before - 1);
        }
        if let Some(run) = self.terms.first_mut() {
            run.0 = run.0.max(self.first);
        }
    }
}
