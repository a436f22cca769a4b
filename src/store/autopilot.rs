//! Writes to autopilot's configuration.

use std::sync::Arc;

use super::apply::thaw;
use super::command::{Applied, ArchivedAutopilotOp};
use super::model::{ArchivedAutopilotConfig, AutopilotConfig};
use super::state::State;

impl State {
    /// How servers are promoted and removed; `None` until a leader has written the first.
    pub fn autopilot(&self) -> Option<&Arc<AutopilotConfig>> {
        self.autopilot.as_ref()
    }

    pub(super) fn apply_autopilot(&mut self, index: u64, op: &ArchivedAutopilotOp) -> Applied {
        match op {
            ArchivedAutopilotOp::Init(config) => {
                if self.autopilot.is_none() {
                    self.autopilot_set(index, config);
                }
                Applied::Done
            }
            ArchivedAutopilotOp::Set(config) => {
                self.autopilot_set(index, config);
                Applied::Done
            }
            ArchivedAutopilotOp::Cas { config, index: expected } => {
                let current = self.autopilot.as_ref().map(|row| row.modify_index);
                let matches = current == Some(expected.to_native());
                if matches {
                    self.autopilot_set(index, config);
                }
                Applied::Condition(matches)
            }
        }
    }

    fn autopilot_set(&mut self, index: u64, config: &ArchivedAutopilotConfig) {
        let mut row: AutopilotConfig = thaw(config);
        row.create_index = self.autopilot.as_ref().map_or(index, |old| old.create_index);
        row.modify_index = index;
        self.autopilot = Some(Arc::new(row));
    }
}
