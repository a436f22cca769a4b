//! Committed entries become state, batch by batch: first the state is given out, then the writers are told.

use muster_protocol::entry::{Configuration, EntryKind, Now};

use super::limits::{BATCH_BYTES_MAX, HELD_BACK_MAX};
use super::writes::answer;
use super::{Done, Effect, Kinds, Outcome, Published, Replica, newer_version};
use crate::consensus::{COMMAND_VERSION, Encoded};
use crate::store::Touched;
use crate::store::command::{ArchivedCatalogOp, ArchivedCommand};

/// What one batch has come to.
#[derive(Default)]
struct Batch {
    changes: Unpublished,
    answers: Vec<(u64, Outcome)>,
    /// What its entries weigh.
    bytes: usize,
}

/// What has changed since the state was given out last.
#[derive(Default)]
pub(super) struct Unpublished {
    touched: Touched,
    kinds: Kinds,
    /// When the state moved first.
    since: Option<Now>,
}

impl Replica {
    /// Applies what is committed, a batch of it; the rest comes with the next steps.
    pub(super) fn apply(&mut self, out: &mut Vec<Effect>) {
        let commit = self.raft.commit_index();
        if self.applied.0 < commit {
            self.apply_batch(commit, out);
        }
        if self.unpublished.since.is_some() {
            return;
        }
        if self.applied.0 >= self.heard.1 && self.heard.1 > 0 {
            self.contact = Some(self.heard.0);
        }
        let holds_all = self.term_start > 0 && self.applied.0 >= self.term_start.max(commit);
        if self.leads() && holds_all {
            // Should it lose the lead, its state is as old as a majority's last word. Before it has applied its own first entry, it
            // may lack what earlier leaders have committed.
            self.contact = self.raft.last_contact().or(self.contact);
        }
    }

    /// Whether the state that was given out lacks what was applied since.
    pub fn holds_back(&self) -> bool {
        self.unpublished.since.is_some()
    }

    fn apply_batch(&mut self, commit: u64, out: &mut Vec<Effect>) {
        let mut batch = Batch { changes: std::mem::take(&mut self.unpublished), ..Batch::default() };
        let last = commit.min(self.applied.0 + self.options.batch_max as u64);
        while self.applied.0 < last && batch.bytes < BATCH_BYTES_MAX {
            if let Err(why) = self.apply_next(&mut batch, out) {
                self.dead = true;
                out.push(Effect::Fatal(why));
                return;
            }
        }
        let Batch { changes, answers, .. } = batch;
        if answers.is_empty() && self.may_hold_back(&changes, commit) {
            self.unpublished = changes;
            return;
        }
        if changes.since.is_some() {
            let (state, applied) = (self.state.clone(), self.applied.0);
            let Unpublished { touched, kinds, .. } = changes;
            out.push(Effect::Publish(Box::new(Published { state, applied, touched, kinds })));
        }
        answer(answers, out);
    }

    /// A state that was given out is never changed: each branch of its tables on the way to a row is copied first. So a server that has
    /// much to catch up with gives out its state only now and then, and when somebody's turn has come: it is several times as fast.
    fn may_hold_back(&self, changes: &Unpublished, commit: u64) -> bool {
        let young = changes.since.is_none_or(|since| self.now.saturating_sub(since) < HELD_BACK_MAX);
        let wanted = self.reads.next_index().is_some_and(|index| index <= self.applied.0);
        self.applied.0 < commit && young && !wanted
    }

    /// # Errors
    /// The entry cannot be applied by this program.
    fn apply_next(&mut self, batch: &mut Batch, out: &mut Vec<Effect>) -> Result<(), String> {
        let next = self.applied.0 + 1;
        let entry = self.cache.get(next);
        let entry = entry.ok_or_else(|| format!("entry {next} of the log is committed and not in memory"))?;
        let (index, term, kind) = (entry.index, entry.term, entry.kind);
        let mut applied = None;
        match kind {
            EntryKind::Noop => {
                self.state.new_term(index);
                batch.changes.since.get_or_insert(self.now);
            }
            EntryKind::Configuration => {
                let configuration = Configuration::decode(entry.version, &entry.body)
                    .map_err(|why| format!("entry {next} of the log cannot be read: {why}"))?;
                self.applied_configuration = (index, configuration);
                self.told.stale = true;
            }
            EntryKind::Command if entry.version != COMMAND_VERSION => return Err(newer_version(entry)),
            EntryKind::Command => {
                // SAFETY: an entry gets into the log from a valid archive only (`Encoded::of`, or a link that has validated it), at an
                // aligned address, and comes back from the disk only with the checksum that it had then.
                let command = unsafe { Encoded::trusted(&entry.body) };
                batch.changes.kinds.count(command);
                let result = self.state.apply(index, command, &mut batch.changes.touched);
                applied = Some(Done { index: self.state.index(), applied: result });
                batch.changes.since.get_or_insert(self.now);
            }
        }
        let weight = super::cache::weight(entry);
        batch.bytes += weight;
        self.snapshots.grew(weight);
        self.applied = (index, term);
        self.applied_write(index, term, applied, &mut batch.answers);
        self.admins.applied(index, term, out);
        Ok(())
    }
}

impl Kinds {
    /// Counts a command; a batch goes by its first write.
    fn count(&mut self, command: &ArchivedCommand) {
        let op = match command {
            ArchivedCommand::Kv(_) => {
                self.kv += 1;
                return;
            }
            ArchivedCommand::Catalog(op) => Some(op),
            ArchivedCommand::CatalogBatch(ops) => ops.first(),
            ArchivedCommand::Autopilot(_) => {
                self.autopilot += 1;
                return;
            }
            ArchivedCommand::Restore(_) => {
                self.restore += 1;
                return;
            }
            ArchivedCommand::Coordinates(_) => {
                self.coordinates += 1;
                return;
            }
            ArchivedCommand::Session(_) => {
                self.sessions += 1;
                return;
            }
            ArchivedCommand::Txn(_) => {
                self.txn += 1;
                return;
            }
        };
        match op {
            Some(ArchivedCatalogOp::Deregister(_)) => self.deregister += 1,
            Some(ArchivedCatalogOp::Register(_)) | None => self.register += 1,
        }
    }
}
