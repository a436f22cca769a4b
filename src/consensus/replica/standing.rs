//! What a replica tells about itself.

use std::sync::Arc;
use std::time::Duration;

use muster_protocol::entry::Now;
use muster_protocol::raft::{self, PeerState};

use super::limits::PEERS_REFRESH;
use super::{Effect, Replica, Standing};
use crate::consensus::{PeerProgress, Role};

/// What was told last.
#[derive(Default)]
pub(super) struct Told {
    /// Something has changed since.
    pub stale: bool,
    at: Now,
    configuration_committed: bool,
}

impl Told {
    /// Nothing was told yet.
    pub fn nothing() -> Told {
        Told { stale: true, ..Told::default() }
    }
}

impl Replica {
    /// Tells it when it has changed, and on a leader with followers now and then.
    pub(super) fn stand(&mut self, out: &mut Vec<Effect>) {
        let committed = self.configuration_committed();
        let due = self.peers_due().is_some_and(|due| due <= self.now);
        if self.told.stale || due || committed != self.told.configuration_committed {
            self.told = Told { stale: false, at: self.now, configuration_committed: committed };
            out.push(Effect::Standing(Box::new(self.standing())));
        }
    }

    /// When a leader's view of the others is to be told again.
    pub(super) fn peers_due(&self) -> Option<Now> {
        self.raft.peers().next().map(|_| self.told.at + PEERS_REFRESH)
    }

    /// All that is known now.
    pub fn standing(&self) -> Standing {
        let last = self.raft.last();
        let (snapshot_index, snapshot_term, _) = self.log.snapshot().unwrap_or_default();
        let (configuration_index, configuration) = self.raft.configuration().cloned().unwrap_or_default();
        Standing {
            id: Some(self.id()),
            role: match self.raft.role() {
                raft::Role::Leader => Role::Leader,
                raft::Role::Candidate | raft::Role::PreCandidate => Role::Candidate,
                raft::Role::Follower => Role::Follower,
            },
            term: self.raft.term(),
            leader: self.leader(),
            configuration: Arc::new(configuration),
            configuration_index,
            configuration_committed: self.configuration_committed(),
            peers: self.raft.peers().map(|(id, peer)| self.progress(id, peer)).collect(),
            last_log_index: last.index,
            last_log_term: last.term,
            commit_index: self.raft.commit_index(),
            applied_index: self.applied.0,
            snapshot_index,
            snapshot_term,
            last_contact: self.age_of_contact(),
            blank: last.index == 0,
            disk_full: self.disk_full,
            repairing: self.raft.repairing_until().is_some(),
        }
    }

    fn progress(&self, id: super::ServerId, peer: raft::Peer) -> PeerProgress {
        PeerProgress {
            id,
            match_index: peer.durable,
            match_term: self.log.term_at(peer.durable).unwrap_or(0),
            last_contact: Some(self.now.saturating_sub(peer.contact)),
            in_snapshot: peer.state == PeerState::Snapshot,
        }
    }

    fn age_of_contact(&self) -> Option<Duration> {
        if self.leads() { Some(Duration::ZERO) } else { self.contact.map(|at| self.now.saturating_sub(at)) }
    }

    fn configuration_committed(&self) -> bool {
        self.raft.configuration().is_some_and(|(index, _)| *index <= self.raft.commit_index())
    }
}
