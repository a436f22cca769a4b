//! The order of writes where one voter decides alone: each command gets the next index and counts at once.

use crate::store::command::Applied;
use crate::store::{State, Touched};

use super::encoded::Encoded;

/// The voter's own copy of the state, ahead of the published one while a batch is applied.
pub(super) struct Sequencer {
    state: State,
}

impl Sequencer {
    pub(super) fn new() -> Sequencer {
        Sequencer { state: State::new() }
    }

    /// Gives a command its index and applies it. Indexes start at 1.
    pub(super) fn commit(&mut self, encoded: &Encoded, touched: &mut Touched) -> Applied {
        self.state.apply(self.state.index() + 1, encoded.command(), touched)
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }
}
