//! The order of writes where one voter decides alone: each command gets the next index and counts at once.

use crate::metrics::{self, Counter, Sample};
use crate::runtime::time;
use crate::store::command::{Applied, ArchivedCatalogOp, ArchivedCommand};
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
        let started = time::now();
        let applied = self.state.apply(self.state.log_index() + 1, encoded.command(), touched);
        metrics::count(Counter::RaftApply, 1);
        metrics::sample(kind(encoded.command()), time::now() - started);
        applied
    }

    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

/// Under which name a command's time is counted; a batch goes by its first write.
fn kind(command: &ArchivedCommand) -> Sample {
    let op = match command {
        ArchivedCommand::Kv(_) => return Sample::FsmKvs,
        ArchivedCommand::Catalog(op) => Some(op),
        ArchivedCommand::CatalogBatch(ops) => ops.first(),
        ArchivedCommand::Autopilot(_) => return Sample::FsmAutopilot,
        ArchivedCommand::Restore(_) => return Sample::FsmRestore,
    };
    match op {
        Some(ArchivedCatalogOp::Deregister(_)) => Sample::FsmDeregister,
        Some(ArchivedCatalogOp::Register(_)) | None => Sample::FsmRegister,
    }
}
