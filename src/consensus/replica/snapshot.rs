//! Snapshots of the own state: when one is due, and how its sections get into a file while writes go on.

use std::time::Duration;

use muster_protocol::entry::{self, Now};
use muster_protocol::log::{SNAPSHOT_QUEUE_BYTES_MAX, SnapshotEncoder, SnapshotMeta};
use muster_protocol::raft;

use super::limits::{LOG_BYTES_DUE, LOG_SNAPSHOTS_DUE, THRESHOLDS_HURRY, THRESHOLDS_MAX, TRAILING_BYTES_MIN};
use super::{Effect, Replica};
use crate::consensus::AdminError;
use crate::store::Section;

/// Version of the state machine whose sections a snapshot holds. Each section has a version of its own besides.
const STATE_VERSION: u32 = 1;

/// When a snapshot is due.
#[derive(Default)]
pub(super) struct Policy {
    /// Entries and bytes of the log since the last one.
    entries: u64,
    bytes: u64,
    /// Bytes of the last one.
    size: u64,
    /// When it is looked next whether one is due.
    next_look: Now,
    /// Somebody wants one now.
    wanted: bool,
    /// The log is to be given up before the snapshot: a part of it cannot be read, or its space is needed.
    cut_all: bool,
    /// Index of the first entry that the log keeps, as Raft knows it.
    kept_from: u64,
    /// Names the snapshots of this life.
    last_id: u64,
}

impl Policy {
    /// What stands after a start.
    pub fn new(size: u64, kept_from: u64, first_look: Now) -> Policy {
        Policy { size, kept_from, next_look: first_look, ..Policy::default() }
    }

    /// An entry was applied.
    pub fn grew(&mut self, weight: usize) {
        self.entries += 1;
        self.bytes += weight as u64;
    }

    /// Takes one at the next opportunity.
    pub fn want(&mut self) {
        self.wanted = true;
    }

    /// Takes one at the next opportunity and keeps no entry before it.
    pub fn want_instead_of_log(&mut self) {
        self.wanted = true;
        self.cut_all = true;
    }

    /// As many bytes are written to the log as to snapshots at least; so snapshots of a large state are rare.
    fn is_due(&mut self, now: Now, threshold: u64, interval: Duration) -> bool {
        let enough = self.enough(threshold);
        let looks = now >= self.next_look;
        if looks {
            self.next_look = now + interval;
        }
        let hurry = enough && self.entries >= threshold.saturating_mul(THRESHOLDS_HURRY);
        let last = self.entries >= threshold.saturating_mul(THRESHOLDS_MAX);
        // A log of large entries is long before they are many.
        let large = self.bytes >= LOG_BYTES_DUE.max(self.size * LOG_SNAPSHOTS_DUE);
        self.wanted || (enough && looks) || hurry || last || large
    }

    fn enough(&self, threshold: u64) -> bool {
        self.entries >= threshold && self.bytes >= self.size
    }

    fn taken(&mut self, size: u64) {
        (self.entries, self.bytes, self.size) = (0, 0, size);
    }
}

/// A snapshot of ours that is being written.
pub(super) struct Taking {
    id: u64,
    index: u64,
    /// None when all sections are written.
    encoder: Option<SnapshotEncoder>,
    /// A section was asked for.
    asked: bool,
}

impl Replica {
    /// Goes on with the snapshots that are being written, here and from the leader, and begins one when it is due.
    pub(super) fn run_snapshots(&mut self, out: &mut Vec<Effect>) {
        self.load_received(out);
        self.run_senders();
        if let Some(taking) = &mut self.taking {
            let room = self.log.snapshot_queued_bytes() < SNAPSHOT_QUEUE_BYTES_MAX;
            if room && !taking.asked && taking.encoder.is_some() {
                taking.asked = true;
                out.push(Effect::NextSection { id: taking.id });
            }
        } else if self.snapshots.is_due(
            self.now,
            self.options.snapshot_threshold,
            self.options.snapshot_interval,
        ) {
            self.take_snapshot(out);
        }
    }

    /// When a snapshot will be due for which there are entries enough already.
    pub(super) fn snapshot_due(&self) -> Option<Now> {
        let waits = self.taking.is_none() && self.snapshots.next_look > self.now;
        (waits && self.snapshots.enough(self.options.snapshot_threshold)).then_some(self.snapshots.next_look)
    }

    fn take_snapshot(&mut self, out: &mut Vec<Effect>) {
        // A transfer reads the newest snapshot, and a receiver writes one: both come first, and end.
        let busy = self.receiving.is_some() || self.senders.sends_snapshot() || self.state.is_restoring();
        if busy {
            return;
        }
        let (index, term) = self.applied;
        let newest = self.log.snapshot().map_or(0, |(newest, ..)| newest);
        if newest >= index {
            self.snapshots.wanted = false;
            if self.snapshots.cut_all && newest > 0 {
                self.cut_log(newest);
            }
            self.end_snapshot_requests(&Ok(()), out);
            return;
        }
        let (configuration_index, configuration) = self.applied_configuration.clone();
        let meta =
            SnapshotMeta { index, term, configuration_index, configuration, state_version: STATE_VERSION };
        let (encoder, header) = SnapshotEncoder::new(&meta);
        self.log.snapshot_begin(index, term);
        self.log.snapshot_write(header);
        self.snapshots.last_id += 1;
        self.snapshots.wanted = false;
        let id = self.snapshots.last_id;
        self.taking = Some(Taking { id, index, encoder: Some(encoder), asked: true });
        out.push(Effect::TakeSnapshot { id, state: Box::new(self.state.clone()) });
        out.push(Effect::NextSection { id });
    }

    pub(super) fn take_section(&mut self, id: u64, section: Option<Section>) {
        let Some(taking) = self.taking.as_mut().filter(|taking| taking.id == id) else { return };
        taking.asked = false;
        match section {
            Some(Section { kind, version, bytes }) => {
                let Some(encoder) = &mut taking.encoder else { return };
                for piece in encoder.section(kind, version, entry::body(bytes)) {
                    self.log.snapshot_write(piece);
                }
            }
            None => {
                let Some(encoder) = taking.encoder.take() else { return };
                self.log.snapshot_write(encoder.finish());
                self.log.snapshot_end();
            }
        }
    }

    pub(super) fn sections_failed(&mut self, id: u64, out: &mut Vec<Effect>) {
        if let Some(taking) = self.taking.as_ref().filter(|taking| taking.id == id) {
            let index = taking.index;
            self.log.snapshot_abort();
            let why = "its sections could not be made; an earlier line says why".to_owned();
            self.snapshot_failed(index, why, out);
        }
    }

    /// The leader's snapshot comes instead.
    pub(super) fn give_up_taking(&mut self, out: &mut Vec<Effect>) {
        if let Some(taking) = self.taking.take() {
            out.push(Effect::DropSnapshot { id: taking.id });
        }
    }

    /// A snapshot is durable: ours, or the leader's.
    pub(super) fn snapshot_saved(&mut self, index: u64, term: u64, bytes: u64, out: &mut Vec<Effect>) {
        self.snapshots.taken(bytes);
        self.told.stale = true;
        if self.receiving.is_some() {
            self.received_saved(index, term);
            return;
        }
        self.taking = None;
        self.cut_log(index);
        self.end_snapshot_requests(&Ok(()), out);
        let text = format!("snapshot at index {index} complete: {bytes} bytes");
        out.push(Effect::Log { warning: false, text });
    }

    pub(super) fn snapshot_failed(&mut self, index: u64, why: String, out: &mut Vec<Effect>) {
        if self.receiving.as_ref().is_some_and(|receiving| receiving.index() == index) {
            self.receiving = None;
        }
        if self.taking.as_ref().is_some_and(|taking| taking.index == index) {
            self.give_up_taking(out);
        }
        // The next attempt comes after as many entries again.
        self.snapshots.entries = 0;
        let text = format!("the snapshot at index {index} was not written, the one before stands: {why}");
        self.end_snapshot_requests(&Err(AdminError::Refused(text.clone())), out);
        out.push(Effect::Log { warning: true, text });
    }

    /// Lets the log before the snapshot go, but for what followers that are a little behind may need. Raft is told when it has
    /// gone.
    fn cut_log(&mut self, index: u64) {
        if std::mem::take(&mut self.snapshots.cut_all) {
            self.log.cut_to_snapshot();
            self.kept_from(index, index + 1);
        } else {
            // Where the entries are more bytes than the snapshot, it is sooner sent than they are.
            let bytes = TRAILING_BYTES_MIN.max(self.snapshots.size * LOG_SNAPSHOTS_DUE);
            let few = (index + 1).saturating_sub(self.options.trailing_logs);
            self.log.cut_before(few.max(self.log.first_within(bytes).min(index + 1)));
        }
    }

    /// Tells Raft what the log has dropped.
    pub(super) fn tell_cut(&mut self, out: &mut Vec<Effect>) {
        let first = self.log.first_index();
        if let Some((index, ..)) = self.log.snapshot()
            && first > self.snapshots.kept_from
            && index <= self.raft.commit_index()
        {
            self.kept_from(index, first.min(index + 1));
            self.run_raft(out);
        }
    }

    pub(super) fn kept_from(&mut self, index: u64, first_kept: u64) {
        self.snapshots.kept_from = first_kept;
        self.raft_inputs.push_back(raft::Input::SnapshotTaken { index, first_kept });
    }

    fn end_snapshot_requests(&mut self, result: &Result<(), AdminError>, out: &mut Vec<Effect>) {
        for token in std::mem::take(&mut self.admins.snapshots) {
            out.push(Effect::AdminDone { token, result: result.clone() });
        }
    }
}
