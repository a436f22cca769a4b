//! Replacing all tables by those of an archive, through the log: the parts are gathered in the state, beside the
//! tables, so that every server holds them all when the commit is applied.

use std::sync::Arc;

use imbl::Vector;
use rkyv::util::AlignedVec;

use super::command::{Applied, ArchivedRestoreOp};
use super::limits::{RESTORE_LENGTH_MAX, RESTORE_SILENCE_MAX};
use super::rebuild::StateBuilder;
use super::state::State;
use super::touched::Touched;

/// What a restore has gathered.
#[derive(Clone, Debug)]
pub(super) struct Staged {
    pub id: u64,
    /// How many sections were announced.
    expected: u64,
    /// How many have come whole.
    came: u64,
    /// What they make, which nobody sees before the commit. Boxed: most states have none.
    pub builder: Arc<StateBuilder>,
    /// What has come of the next one.
    pub rest: Vector<Arc<[u8]>>,
    /// Number of the next part.
    pub next: u64,
    /// Bytes gathered.
    length: usize,
    /// Index in the log of the newest part.
    heard_at: u64,
}

impl Staged {
    pub(super) fn is_silent_at(&self, log_index: u64) -> bool {
        log_index > self.heard_at + RESTORE_SILENCE_MAX
    }
}

impl State {
    pub(super) fn apply_restore(
        &mut self,
        log_index: u64,
        op: &ArchivedRestoreOp,
        touched: &mut Touched,
    ) -> Applied {
        match op {
            ArchivedRestoreOp::Begin { id, sections } => {
                self.staged = Some(Staged {
                    id: id.to_native(),
                    expected: sections.to_native(),
                    came: 0,
                    builder: Arc::new(StateBuilder::new()),
                    rest: Vector::new(),
                    next: 0,
                    length: 0,
                    heard_at: log_index,
                });
                Applied::Done
            }
            ArchivedRestoreOp::Abort { id } => {
                if self.staged.as_ref().is_some_and(|staged| staged.id == *id) {
                    self.staged = None;
                }
                Applied::Done
            }
            op => match self.continue_restore(log_index, op, touched) {
                Ok(()) => Applied::Done,
                Err(text) => {
                    self.staged = None;
                    Applied::Refused(text)
                }
            },
        }
    }

    fn continue_restore(
        &mut self,
        log_index: u64,
        op: &ArchivedRestoreOp,
        touched: &mut Touched,
    ) -> Result<(), String> {
        let (ArchivedRestoreOp::Part { id, .. } | ArchivedRestoreOp::Commit { id }) = op else {
            return Ok(());
        };
        let staged = self.staged.take().filter(|staged| staged.id == *id);
        let mut staged = staged.ok_or(
            "the restore was given up before it was complete: the leader changed or another restore began; \
             nothing was changed, restore again",
        )?;
        match op {
            ArchivedRestoreOp::Part { number, kind, version, last, bytes, .. } => {
                staged.heard_at = log_index;
                let next = staged.next;
                if number.to_native() == next {
                    staged.add(kind.to_native(), version.to_native(), *last, bytes)?;
                } else if number.to_native() > next {
                    return Err(format!("part {number} of the restore came where part {next} was due"));
                }
                self.staged = Some(staged);
                Ok(())
            }
            _ => self.replace_tables(log_index, staged, touched),
        }
    }

    /// Puts the gathered tables in the place of these. All rows keep their indexes; the state's own goes on from
    /// whichever is ahead.
    fn replace_tables(
        &mut self,
        log_index: u64,
        staged: Staged,
        touched: &mut Touched,
    ) -> Result<(), String> {
        let Staged { expected, came, builder, rest, .. } = staged;
        if came != expected || !rest.is_empty() {
            return Err(format!("the restore holds {came} of {expected} sections"));
        }
        let mut state = Arc::unwrap_or_clone(builder).finish().map_err(|why| why.to_string())?;
        state.index = self.index.max(state.index + 1);
        state.offset = state.index - log_index;
        state.restored_at = state.index;
        *self = state;
        touched.merge(Touched::everything());
        Ok(())
    }
}

impl Staged {
    fn add(&mut self, kind: u16, version: u16, last: bool, bytes: &[u8]) -> Result<(), String> {
        self.next += 1;
        self.length += bytes.len();
        if self.length > RESTORE_LENGTH_MAX {
            return Err(format!(
                "the archive holds more than the {RESTORE_LENGTH_MAX} bytes that a restore takes"
            ));
        }
        if self.came == self.expected {
            return Err(format!(
                "the restore brought more than the {} sections that it announced",
                self.expected
            ));
        }
        if !last {
            self.rest.push_back(bytes.into());
            return Ok(());
        }
        let before = std::mem::take(&mut self.rest);
        let length = before.iter().map(|bytes| bytes.len()).sum::<usize>() + bytes.len();
        let mut whole = AlignedVec::<16>::with_capacity(length);
        before.iter().for_each(|bytes| whole.extend_from_slice(bytes));
        whole.extend_from_slice(bytes);
        self.came += 1;
        let put = Arc::make_mut(&mut self.builder).section(kind, version, &whole);
        put.map_err(|why| why.to_string())
    }
}
