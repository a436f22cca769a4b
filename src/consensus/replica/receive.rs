//! A snapshot from the leader, for a server whose log ends before the leader's begins: chunk by chunk into a file, checked
//! and loaded off this thread, and only then put in the place of the state.

use muster_protocol::entry::{Now, ServerId};
use muster_protocol::log::{SNAPSHOT_QUEUE_BYTES_MAX, SnapshotMeta};
use muster_protocol::raft;
use muster_protocol::rpc::PeerMessage;
use muster_protocol::rpc::message::{SnapshotAck, SnapshotChunk};

use super::limits::{INDEX_MAX, SNAPSHOT_SILENCE_MAX};
use super::{Effect, Kinds, Published, Replica};
use crate::store::{State, Touched};

/// A snapshot that is arriving.
pub(super) struct Receiving {
    from: ServerId,
    term: u64,
    index: u64,
    total: u64,
    received: u64,
    last_heard: Now,
    /// The last chunk was not acknowledged yet, as the disk is behind.
    owed: bool,
    stage: Stage,
}

enum Stage {
    Arriving,
    Loading,
    /// Being synced and renamed.
    Saving(Box<(SnapshotMeta, State)>),
}

impl Receiving {
    pub fn index(&self) -> u64 {
        self.index
    }
}

impl Replica {
    pub(super) fn take_chunk(&mut self, from: ServerId, chunk: SnapshotChunk) {
        let SnapshotChunk { leader_term, term, index, total, offset, data } = chunk;
        // A leader's log has no entry of a later term than its own.
        let is_void = leader_term < self.raft.term() || term > leader_term || index > INDEX_MAX;
        if is_void || self.raft.role() == raft::Role::Leader {
            self.acknowledge(from, term, index, 0, false);
            return;
        }
        if index <= self.raft.commit_index() {
            self.acknowledge(from, term, index, total, true);
            return;
        }
        let same = |receiving: &Receiving| {
            (receiving.term, receiving.index, receiving.total) == (term, index, total)
        };
        if !self.receiving.as_ref().is_some_and(same) {
            if offset != 0 || self.is_saving() {
                self.acknowledge(from, term, index, 0, false);
                return;
            }
            self.taking_gives_way = self.taking.is_some();
            self.log.snapshot_begin(index, term);
            let stage = Stage::Arriving;
            let (received, owed, last_heard) = (0, false, self.now);
            self.receiving = Some(Receiving { from, term, index, total, received, last_heard, owed, stage });
        }
        let Some(receiving) = &mut self.receiving else { return };
        receiving.from = from;
        receiving.last_heard = self.now;
        receiving.owed = true;
        let length = data.len() as u64;
        if offset == receiving.received && receiving.received + length <= total && length > 0 {
            receiving.received += length;
            self.log.snapshot_write(data);
        }
    }

    /// Gives up a transfer that nobody goes on with: the log has come another way, or its sender leads no more. It would stand in
    /// the way of this server's own snapshots.
    pub(super) fn sweep_receiving(&mut self) {
        let leads = self.raft.role() == raft::Role::Leader;
        let (commit, now) = (self.raft.commit_index(), self.now);
        let idle = |receiving: &Receiving| {
            let silent = receiving.last_heard + SNAPSHOT_SILENCE_MAX <= now;
            matches!(receiving.stage, Stage::Arriving) && (leads || silent || receiving.index <= commit)
        };
        if self.receiving.as_ref().is_some_and(idle) {
            self.receiving = None;
            self.log.snapshot_abort();
        }
    }

    /// Answers what is owed when the disk has room, and loads what is complete.
    pub(super) fn load_received(&mut self, out: &mut Vec<Effect>) {
        if std::mem::take(&mut self.taking_gives_way) {
            self.give_up_taking(out);
        }
        let queued = self.log.snapshot_queued_bytes();
        let Some(receiving) = &mut self.receiving else { return };
        if receiving.owed && queued < SNAPSHOT_QUEUE_BYTES_MAX {
            receiving.owed = false;
            let Receiving { from, term, index, received, .. } = *receiving;
            if received == receiving.total && queued == 0 && matches!(receiving.stage, Stage::Arriving) {
                receiving.stage = Stage::Loading;
                out.push(Effect::LoadSnapshot { term, index });
            }
            self.acknowledge(from, term, index, received, false);
        } else if receiving.received == receiving.total
            && queued == 0
            && matches!(receiving.stage, Stage::Arriving)
        {
            receiving.stage = Stage::Loading;
            let Receiving { term, index, .. } = *receiving;
            out.push(Effect::LoadSnapshot { term, index });
        }
    }

    pub(super) fn snapshot_loaded(
        &mut self,
        term: u64,
        index: u64,
        loaded: Result<Box<(SnapshotMeta, State)>, String>,
        out: &mut Vec<Effect>,
    ) {
        let waits = |receiving: &Receiving| {
            (receiving.term, receiving.index) == (term, index) && matches!(receiving.stage, Stage::Loading)
        };
        if !self.receiving.as_ref().is_some_and(waits) {
            return;
        }
        let loaded = loaded.and_then(|loaded| {
            let meta = &loaded.0;
            if (meta.term, meta.index) != (term, index) {
                return Err(format!("it is of index {}", meta.index));
            }
            if meta.configuration_index > index {
                return Err(format!("its servers are those of a later index, {}", meta.configuration_index));
            }
            Ok(loaded)
        });
        match (loaded, &mut self.receiving) {
            (Ok(loaded), Some(receiving)) => {
                receiving.stage = Stage::Saving(loaded);
                self.log.snapshot_end();
            }
            (loaded, _) => {
                self.receiving = None;
                self.log.snapshot_abort();
                let why = loaded.err().unwrap_or_default();
                let text = format!(
                    "the leader's snapshot at index {index} is of no use, it is asked for again: {why}"
                );
                out.push(Effect::Log { warning: true, text });
            }
        }
    }

    /// The leader's snapshot is durable: Raft decides whether it holds.
    pub(super) fn received_saved(&mut self, index: u64, term: u64) {
        let Some(Receiving { stage: Stage::Saving(loaded), .. }) = &self.receiving else { return };
        let SnapshotMeta { configuration_index, configuration, .. } = loaded.0.clone();
        self.raft_inputs.push_back(raft::Input::SnapshotInstalled {
            index,
            term,
            configuration_index,
            configuration,
        });
    }

    pub(super) fn snapshot_accepted(&mut self, index: u64, term: u64, keep_log: bool, out: &mut Vec<Effect>) {
        let Some(receiving) = self.receiving.take() else { return };
        let Stage::Saving(loaded) = receiving.stage else { return };
        let (meta, state) = *loaded;
        match keep_log {
            true => self.cache.drop_to(index),
            false => self.cache.clear(),
        }
        self.state = state;
        self.unpublished = Default::default();
        self.applied = (index, term);
        self.applied_configuration = (meta.configuration_index, meta.configuration);
        self.told.stale = true;
        let touched = Touched::everything();
        let state = self.state.clone();
        out.push(Effect::Publish(Box::new(Published {
            state,
            applied: index,
            touched,
            kinds: Kinds::default(),
        })));
        self.leapt_over(index, out);
        self.admins.applied(index, 0, out);
        self.acknowledge(receiving.from, term, index, receiving.total, true);
        let text = format!("the leader's snapshot at index {index} is in use");
        out.push(Effect::Log { warning: false, text });
    }

    pub(super) fn snapshot_ignored(&mut self, index: u64) {
        if let Some(receiving) = self.receiving.take_if(|receiving| receiving.index == index) {
            self.acknowledge(receiving.from, receiving.term, index, receiving.total, true);
        }
    }

    fn is_saving(&self) -> bool {
        self.receiving.as_ref().is_some_and(|receiving| matches!(receiving.stage, Stage::Saving(_)))
    }

    fn acknowledge(&mut self, to: ServerId, term: u64, index: u64, received: u64, installed: bool) {
        let follower_term = self.raft.term();
        let ack = SnapshotAck { follower_term, term, index, received, installed };
        self.sends.push((to, PeerMessage::SnapshotAck(ack)));
    }
}
