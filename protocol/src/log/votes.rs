//! Term and vote as they run: saves that wait, the save that is under way.

use bytes::Bytes;

use super::frame::BLOCK;
use super::vote::{HardState, Slot};
use crate::entry::ServerId;

/// A term and whom this server voted for in it.
type Vote = (u64, Option<ServerId>);

/// See the module.
#[derive(Debug)]
pub(super) struct Votes {
    state: HardState,
    sequence: u64,
    /// The slot to write first: the one that does not hold the newest state, if the two differ.
    first_slot: usize,
    dirty: bool,
    waiting: Vec<Vote>,
    under_way: Option<Vec<Vote>>,
}

impl Votes {
    pub fn new(newest: &Slot, first_slot: usize) -> Votes {
        Votes {
            state: newest.state.clone(),
            sequence: newest.sequence,
            first_slot,
            dirty: false,
            waiting: Vec::new(),
            under_way: None,
        }
    }

    pub fn save(&mut self, term: u64, vote: Option<ServerId>) {
        self.state.term = term;
        self.state.vote = vote;
        self.waiting.push((term, vote));
        self.dirty = true;
    }

    pub fn set_repair_until(&mut self, index: u64) {
        if self.state.repair_until != index {
            self.state.repair_until = index;
            self.dirty = true;
        }
    }

    /// The two writes of the next save, in order, unless one is under way or none waits: (offset, bytes). Saves that waited share it.
    pub fn writes(&mut self) -> Option<[(u64, Bytes); 2]> {
        if !self.dirty || self.under_way.is_some() {
            return None;
        }
        self.dirty = false;
        self.under_way = Some(std::mem::take(&mut self.waiting));
        Some(self.rewrite())
    }

    /// Both slots anew, in the order in which they must be written.
    pub fn rewrite(&mut self) -> [(u64, Bytes); 2] {
        self.sequence += 1;
        let bytes = Slot { sequence: self.sequence, state: self.state.clone() }.encode();
        let place = |slot: usize| (slot * BLOCK) as u64;
        [(place(self.first_slot), bytes.clone()), (place(1 - self.first_slot), bytes)]
    }

    /// The save is done; which ones it held.
    pub fn done(&mut self) -> Vec<Vote> {
        self.under_way.take().unwrap_or_default()
    }
}
