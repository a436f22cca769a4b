//! What goes to followers that are not up to date: entries that are no longer in memory, read back from the log, and
//! snapshots, chunk by chunk.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use muster_protocol::entry::{Entry, Now, ServerId};
use muster_protocol::log::ReadToken;
use muster_protocol::raft::{self, Append, Position, Raft, Role};
use muster_protocol::rpc::PeerMessage;
use muster_protocol::rpc::message::{SNAPSHOT_CHUNK_MAX, SnapshotAck, SnapshotChunk};

use super::limits::{READ_BYTES_MAX, SNAPSHOT_RESEND, SNAPSHOT_SILENCE_MAX, SNAPSHOT_WINDOW};
use super::{Effect, Replica};

/// All that is being read for others.
#[derive(Default)]
pub(super) struct Senders {
    /// Messages that wait for entries from the disk, and those behind them for the same server. As many as Raft lets be on
    /// their way.
    entries: BTreeMap<ServerId, Behind>,
    snapshots: BTreeMap<ServerId, Sending>,
    reads: BTreeMap<ReadToken, ServerId>,
}

#[derive(Default)]
struct Behind {
    /// The first is being read for, if `reading`.
    queue: VecDeque<(Append, u64)>,
    reading: bool,
}

impl Behind {
    /// Raft has gone back: what was to be sent of entries after this one is obsolete. What is being read for stays, as its answer
    /// will be looked for.
    fn forget_from(&mut self, prev: u64) {
        while self.queue.len() > usize::from(self.reading)
            && self.queue.back().is_some_and(|(_, last)| *last > prev)
        {
            self.queue.pop_back();
        }
    }
}

/// A snapshot on its way to one server.
struct Sending {
    leader_term: u64,
    /// Which: index, term, bytes of the file.
    snapshot: (u64, u64, u64),
    /// Where the next chunk begins.
    next: u64,
    /// How much the receiver has.
    received: u64,
    reading: Option<ReadToken>,
    last_heard: Now,
    last_sent: Now,
}

impl Senders {
    pub fn any(&self) -> bool {
        !self.entries.is_empty() || !self.snapshots.is_empty()
    }

    pub fn sends_snapshot(&self) -> bool {
        !self.snapshots.is_empty()
    }

    /// What was for followers of a lead that is over is not sent any more.
    pub fn leader_changed(&mut self, raft: &Raft) {
        if raft.role() != Role::Leader {
            *self = Senders::default();
        }
    }

    /// The link broke: what is on its way may be lost.
    pub fn peer_lost(&mut self, peer: ServerId, now: Now) {
        if let Some(sending) = self.snapshots.get_mut(&peer) {
            sending.next = sending.received;
            sending.last_sent = now;
        }
    }
}

impl Replica {
    /// Fills a message with its entries, now or when they are read.
    pub(super) fn send_entries(&mut self, to: ServerId, mut append: Append, last: u64) {
        let waits = self.senders.entries.contains_key(&to);
        match self.cache.range(append.prev.index + 1, last) {
            Some(entries) if !waits => {
                append.entries = entries;
                self.sends.push((to, PeerMessage::Raft(raft::Message::Append(append))));
            }
            _ => {
                let behind = self.senders.entries.entry(to).or_default();
                behind.forget_from(append.prev.index);
                behind.queue.push_back((append, last));
                self.read_behind(to);
            }
        }
    }

    /// Sends what is in memory by now, and reads for the first message that needs the disk.
    fn read_behind(&mut self, to: ServerId) {
        let (leads, term) = (self.raft.role() == Role::Leader, self.raft.term());
        let Some(behind) = self.senders.entries.get_mut(&to) else { return };
        while !behind.reading {
            let Some((append, last)) = behind.queue.front() else { break };
            let (from, last) = (append.prev.index + 1, *last);
            if !leads || append.term != term {
                behind.queue.pop_front();
            } else if let Some(entries) = self.cache.range(from, last) {
                let Some((mut append, _)) = behind.queue.pop_front() else { break };
                append.entries = entries;
                self.sends.push((to, PeerMessage::Raft(raft::Message::Append(append))));
            } else if let Some(token) = self.log.read(from, last, READ_BYTES_MAX) {
                behind.reading = true;
                self.senders.reads.insert(token, to);
            } else if from < self.log.first_index() {
                behind.queue.pop_front();
                self.log_does_not_reach();
                return;
            } else {
                // Too many reads are under way: one of them will end.
                return;
            }
        }
        if behind.queue.is_empty() {
            self.senders.entries.remove(&to);
        }
    }

    pub(super) fn entries_read(&mut self, token: ReadToken, entries: Vec<Entry>) {
        let Some(to) = self.senders.reads.remove(&token) else { return };
        let Some(behind) = self.senders.entries.get_mut(&to) else { return };
        behind.reading = false;
        let (leads, term) = (self.raft.role() == Role::Leader, self.raft.term());
        let fits =
            |append: &Append| entries.first().is_some_and(|first| first.index == append.prev.index + 1);
        if let Some((mut append, last)) = behind.queue.pop_front()
            && leads
            && append.term == term
            && fits(&append)
        {
            // A read may end early: the rest of the range follows at once, as what is queued behind it begins there.
            if let Some(end) = entries.last().filter(|end| end.index < last) {
                let prev = Position::new(end.index, end.term);
                behind.queue.push_front((Append { prev, entries: Vec::new(), ..append.clone() }, last));
            }
            append.entries = entries;
            self.sends.push((to, PeerMessage::Raft(raft::Message::Append(append))));
        }
        self.read_behind(to);
    }

    pub(super) fn read_failed(&mut self, token: ReadToken, damage: Option<String>, out: &mut Vec<Effect>) {
        let Some(to) = self.senders.reads.remove(&token) else { return };
        if let Some(sending) = self.senders.snapshots.get_mut(&to)
            && sending.reading == Some(token)
        {
            sending.reading = None;
            self.snapshot_sent(to, None);
        } else if let Some(behind) = self.senders.entries.get_mut(&to) {
            behind.reading = false;
            behind.queue.pop_front();
            match damage {
                None => self.log_does_not_reach(),
                Some(_) => self.snapshots.want_instead_of_log(),
            }
            self.read_behind(to);
        }
        if let Some(damage) = damage {
            let text = format!(
                "what a follower needs cannot be read ({damage}); this server's own state is whole: a new snapshot takes its place"
            );
            out.push(Effect::Log { warning: true, text });
        }
    }

    /// Entries that Raft takes for held are not: followers get a snapshot instead.
    fn log_does_not_reach(&mut self) {
        if let Some((index, ..)) = self.log.snapshot() {
            self.kept_from(index, self.log.first_index().min(index + 1));
        }
    }

    pub(super) fn send_snapshot(&mut self, to: ServerId, leader_term: u64) {
        let Some(snapshot) = self.log.snapshot() else {
            self.snapshots.want();
            self.raft_inputs.push_back(raft::Input::SnapshotSent { to, index: None });
            return;
        };
        self.senders.entries.remove(&to);
        let sending = Sending {
            leader_term,
            snapshot,
            next: 0,
            received: 0,
            reading: None,
            last_heard: self.now,
            last_sent: self.now,
        };
        self.senders.snapshots.insert(to, sending);
    }

    /// Reads the next chunks, one at a time for each server.
    pub(super) fn run_senders(&mut self) {
        let newest = self.log.snapshot();
        for (to, sending) in &mut self.senders.snapshots {
            let (_, _, total) = sending.snapshot;
            let window = SNAPSHOT_WINDOW * SNAPSHOT_CHUNK_MAX as u64;
            let full = sending.next >= total || sending.next - sending.received >= window;
            if sending.reading.is_some() || full || newest != Some(sending.snapshot) {
                continue;
            }
            if let Some(token) = self.log.snapshot_read(sending.snapshot.0, sending.next, SNAPSHOT_CHUNK_MAX)
            {
                sending.reading = Some(token);
                self.senders.reads.insert(token, *to);
            }
        }
    }

    pub(super) fn snapshot_read(&mut self, token: ReadToken, offset: u64, data: Bytes) {
        let Some(to) = self.senders.reads.remove(&token) else { return };
        let Some(sending) = self.senders.snapshots.get_mut(&to) else { return };
        if sending.reading != Some(token) {
            return;
        }
        sending.reading = None;
        if offset != sending.next || data.is_empty() {
            return;
        }
        sending.next = offset + data.len() as u64;
        self.send_chunk(to, offset, data);
    }

    fn send_chunk(&mut self, to: ServerId, offset: u64, data: Bytes) {
        let Some(sending) = self.senders.snapshots.get_mut(&to) else { return };
        sending.last_sent = self.now;
        let (index, term, total) = sending.snapshot;
        let leader_term = sending.leader_term;
        let chunk = SnapshotChunk { leader_term, term, index, total, offset, data };
        self.sends.push((to, PeerMessage::SnapshotChunk(chunk)));
    }

    pub(super) fn take_ack(&mut self, from: ServerId, ack: SnapshotAck) {
        let Some(sending) = self.senders.snapshots.get_mut(&from) else { return };
        let (index, term, total) = sending.snapshot;
        if (ack.index, ack.term) != (index, term) || ack.received > total {
            return;
        }
        sending.last_heard = self.now;
        if ack.installed {
            self.snapshot_sent(from, Some(index));
            return;
        }
        // Less than was acknowledged before: the receiver has begun anew.
        if ack.received < sending.received {
            sending.next = ack.received;
        }
        // It may hold more than was sent again, or than this server has sent yet: of an earlier transfer.
        sending.next = sending.next.max(ack.received);
        sending.received = ack.received;
    }

    /// Repeats what was not acknowledged, and gives up on servers that are silent.
    pub(super) fn sweep_senders(&mut self, out: &mut Vec<Effect>) {
        let now = self.now;
        let newest = self.log.snapshot();
        let (mut silent, mut nudged) = (Vec::new(), Vec::new());
        for (to, sending) in &mut self.senders.snapshots {
            if sending.last_heard + SNAPSHOT_SILENCE_MAX <= now || newest != Some(sending.snapshot) {
                silent.push(*to);
            } else if sending.last_heard.max(sending.last_sent) + SNAPSHOT_RESEND <= now {
                sending.next = sending.received;
                if sending.next == sending.snapshot.2 {
                    nudged.push((*to, sending.next));
                }
            }
        }
        for (to, offset) in nudged {
            // All has arrived and is being loaded: a chunk without data asks how far that is.
            self.send_chunk(to, offset, Bytes::new());
        }
        for to in silent {
            self.snapshot_sent(to, None);
            let text =
                format!("sending a snapshot to {to} was given up: it does not answer; it is tried again");
            out.push(Effect::Log { warning: true, text });
        }
        let behind: Vec<ServerId> = self.senders.entries.keys().copied().collect();
        behind.into_iter().for_each(|to| self.read_behind(to));
    }

    fn snapshot_sent(&mut self, to: ServerId, index: Option<u64>) {
        self.senders.snapshots.remove(&to);
        self.raft_inputs.push_back(raft::Input::SnapshotSent { to, index });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A link that broke again and again left a window of ranges behind each time, and all of them were read and sent.
    #[test]
    fn what_raft_sends_anew_is_not_sent_twice() {
        let range = |prev: u64, last| {
            let prev = Position::new(prev, 1);
            let (entries, round_began) = (Vec::new(), Duration::ZERO);
            let append = Append {
                term: 1,
                prev,
                entries,
                commit: 0,
                round: 1,
                round_began,
                epoch: 0,
                answer: true,
                heal: None,
            };
            (append, last)
        };
        let queued = |behind: &Behind| behind.queue.iter().map(|(_, last)| *last).collect::<Vec<u64>>();
        let mut behind = Behind { queue: [range(0, 10), range(10, 20), range(20, 30)].into(), reading: true };
        behind.forget_from(30);
        assert_eq!(queued(&behind), [10, 20, 30], "it goes on where the last one ends");
        behind.forget_from(15);
        assert_eq!(queued(&behind), [10]);
        behind.forget_from(5);
        assert_eq!(queued(&behind), [10], "this one is being read");
        behind.reading = false;
        behind.forget_from(5);
        assert!(queued(&behind).is_empty());
    }
}
