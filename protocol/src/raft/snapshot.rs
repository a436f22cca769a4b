//! Snapshots as far as Raft is concerned: what the log no longer holds, and where it begins again (thesis, chapter 5). The bytes
//! are the driver's.

use super::{Effect, LogView, Position, Raft, Role};
use crate::entry::{Configuration, ServerId};

impl Raft {
    pub(super) fn on_snapshot_taken(&mut self, index: u64, first_kept: u64) {
        let last = self.log.last().index;
        assert!(
            first_kept <= index + 1 && index <= last,
            "a snapshot at {index}, a log from {first_kept} to {last}"
        );
        self.configurations.forget_before(index);
        self.log.cut(first_kept);
    }

    pub(super) fn on_snapshot_installed(
        &mut self,
        at: Position,
        configuration: (u64, Configuration),
        out: &mut Vec<Effect>,
    ) {
        if at.index <= self.commit || self.role == Role::Leader {
            return out.push(Effect::SnapshotIgnored { index: at.index });
        }
        assert!(configuration.0 <= at.index, "a snapshot has the configuration of its time");
        let before = self.configurations.latest().map(|(index, _)| *index);
        let keep_log = self.log.holds(at);
        if keep_log {
            self.log.cut(at.index + 1);
        } else {
            self.configurations.truncate(0);
            self.log = LogView::new(at);
        }
        self.configurations.replace_through(at.index, configuration);
        self.commit = at.index;
        // The snapshot itself is durable; of the log behind it what was so before.
        self.durable = if keep_log { self.durable.max(at.index) } else { at.index };
        self.disk.appended(self.now, self.durable < self.log.last().index);
        self.following.received = self.following.received.max(at.index);
        out.push(Effect::SnapshotAccepted { index: at.index, term: at.term, keep_log });
        if let Some((index, configuration)) = self.configurations.latest().cloned()
            && Some(index) != before
        {
            out.push(Effect::Configuration { index, configuration });
        }
        self.check_repaired(out);
        self.acknowledge(out);
    }

    pub(super) fn on_snapshot_sent(&mut self, to: ServerId, index: Option<u64>, out: &mut Vec<Effect>) {
        let Some(peer) = self.leading.as_mut().and_then(|leading| leading.peers.get_mut(&to)) else { return };
        peer.snapshot_sent(index);
        self.advance_commit(out);
        self.send_to_all(out);
    }
}
