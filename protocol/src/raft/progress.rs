//! How far another server is, as its leader sees it, and what is on its way there.
//!
//! Bounds: at most `Limits::in_flight_messages` messages and about `Limits::in_flight_bytes` bytes of entries are under
//! way to one server. Entries count until they are durable there, so a follower with a slow disk holds no more.

use std::collections::VecDeque;
use std::time::Duration;

use super::{Heal, Limits, LogView, Peer, PeerState, Position};
use crate::entry::Now;

/// A leader's knowledge of one other server.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub state: PeerState,
    /// All up to here agrees with the leader's log and is durable there.
    pub durable: u64,
    /// The next entry to send.
    pub next: u64,
    in_flight: VecDeque<InFlight>,
    in_flight_bytes: u64,
    /// In [`PeerState::Probe`]: the entries that were sent to find out where the logs agree, until they are answered.
    probe: Option<InFlight>,
    /// When it last answered in this term.
    pub contact: Now,
    /// The newest round that it has answered, and when that began.
    pub round: u64,
    pub round_began: Now,
    /// The commit index that it was last told.
    pub commit_told: u64,
    /// It takes no entries now.
    pub full: bool,
    /// It is damaged, and told how it will be whole again.
    pub heal: Option<Heal>,
    /// It is no longer in the configuration, whose entry is still told to it until this time at most.
    pub leaves: Option<Leave>,
}

/// A server that is removed, and is to learn so.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    /// Index of the configuration without it.
    pub index: u64,
    pub until: Now,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    last: u64,
    bytes: u64,
    sent: Now,
}

impl Progress {
    /// A server of which nothing is known yet but that it is worth asking at `next`.
    pub fn new(now: Now, next: u64) -> Progress {
        Progress {
            state: PeerState::Probe,
            durable: 0,
            next,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            probe: None,
            contact: now,
            round: 0,
            round_began: Now::ZERO,
            commit_told: 0,
            full: false,
            heal: None,
            leaves: None,
        }
    }

    /// What is told of it.
    pub fn peer(&self) -> Peer {
        Peer { durable: self.durable, contact: self.contact, state: self.state, full: self.full }
    }

    /// Messages and bytes of entries on their way.
    #[cfg(test)]
    pub fn in_flight(&self) -> (usize, u64) {
        (self.in_flight.len() + usize::from(self.probe.is_some()), self.in_flight_bytes)
    }

    /// Whether nothing is on its way whose answer is still to come.
    pub fn is_quiet(&self) -> bool {
        self.in_flight.is_empty() && self.probe.is_none()
    }

    /// The entry before the next message's first: where the logs agree, or are asked whether they do.
    pub fn prev(&self, log: &LogView) -> Position {
        let index = match self.state {
            PeerState::Probe => self.next - 1,
            PeerState::Replicate | PeerState::Snapshot => self.durable,
        };
        match log.term_at(index) {
            Some(term) => Position { term, index },
            None => log.base(),
        }
    }

    /// The last entry of the next message with entries, when one may go now: takes it as sent.
    pub fn take_range(&mut self, now: Now, log: &LogView, limits: &Limits) -> Option<(Position, u64)> {
        let last_index = log.last().index;
        if self.full || self.next > last_index || self.state == PeerState::Snapshot || self.probe.is_some() {
            return None;
        }
        let Some(term) = log.term_at(self.next - 1) else {
            // The log was cut while it lagged: a sign of life will ask whether it has what is before the log.
            self.become_probe(log.base().index + 1);
            return None;
        };
        let room = limits.in_flight_bytes.saturating_sub(self.in_flight_bytes);
        if self.in_flight.len() >= limits.in_flight_messages || room == 0 {
            return None;
        }
        let prev = Position { term, index: self.next - 1 };
        let last = log.range_within(self.next, limits.message_bytes.min(room));
        let bytes = log.bytes(prev.index, last).max(1);
        let sent = InFlight { last, bytes, sent: now };
        if self.state == PeerState::Probe {
            self.probe = Some(sent);
        } else {
            self.next = last + 1;
            self.in_flight_bytes += bytes;
            self.in_flight.push_back(sent);
        }
        Some((prev, last))
    }

    /// It agrees with the leader's log up to `received`, and durably so up to `durable`. `began` is when the newest round
    /// that it has heard of began; what was sent `grace` before that and has not arrived by then is lost.
    pub fn accepted(&mut self, durable: u64, received: u64, began: Now, grace: Duration) {
        self.durable = self.durable.max(durable);
        match self.state {
            PeerState::Probe => {
                let answered = match self.probe {
                    Some(probe) => received >= probe.last || probe.sent + grace < began,
                    None => true,
                };
                if answered && received + 1 >= self.next {
                    self.become_replicate(began, received);
                }
            }
            PeerState::Replicate => {
                while self.in_flight.front().is_some_and(|sent| sent.last <= self.durable) {
                    let sent = self.in_flight.pop_front().expect("there is one");
                    self.in_flight_bytes -= sent.bytes;
                }
                self.next = self.next.max(self.durable + 1);
                let lost = |sent: &InFlight| sent.last > received && sent.sent + grace < began;
                if self.in_flight.front().is_some_and(lost) {
                    self.become_probe(received.max(self.durable) + 1);
                }
            }
            PeerState::Snapshot => {
                if received + 1 >= self.next {
                    self.become_replicate(began, received);
                }
            }
        }
    }

    /// It refused a message because the logs differ at `prev`; they may agree at `hint`. Whether it needs a snapshot.
    pub fn rejected(&mut self, prev: u64, hint: Position, log: &LogView) -> bool {
        match self.state {
            PeerState::Snapshot => return false,
            // Only the newest question counts.
            PeerState::Probe if prev != self.prev(log).index => return false,
            _ => {}
        }
        if prev <= self.durable {
            // What it had made durable is gone: its disk was damaged. It says so itself and does not vote meanwhile.
            self.durable = 0;
        }
        let agree = log.last_not_after(hint);
        let base = log.base();
        let before_log = hint.index < base.index || (agree.index == base.index && base.term > hint.term);
        if before_log && self.durable < base.index {
            self.become_snapshot(base.index);
            return true;
        }
        self.become_probe(agree.index.max(self.durable) + 1);
        false
    }

    /// A snapshot up to `index` has reached it, or the sending has failed.
    pub fn snapshot_sent(&mut self, index: Option<u64>) {
        if self.state == PeerState::Snapshot {
            let durable = index.map_or(self.durable, |index| self.durable.max(index));
            self.become_probe(durable + 1);
        }
    }

    /// The link to it broke: it is asked what it has, and gets entries again when it has answered.
    pub fn unreachable(&mut self, now: Now) {
        if self.state == PeerState::Replicate {
            self.become_probe(self.durable + 1);
            self.probe = Some(InFlight { last: self.durable, bytes: 0, sent: now });
        }
    }

    fn become_probe(&mut self, next: u64) {
        self.state = PeerState::Probe;
        self.next = next;
        self.forget_in_flight();
    }

    fn become_replicate(&mut self, now: Now, received: u64) {
        self.state = PeerState::Replicate;
        self.next = received + 1;
        self.forget_in_flight();
        if received > self.durable {
            // It may lose what it has received: then this is found lost.
            self.in_flight.push_back(InFlight { last: received, bytes: 0, sent: now });
        }
    }

    fn become_snapshot(&mut self, base: u64) {
        self.state = PeerState::Snapshot;
        self.next = base + 1;
        self.forget_in_flight();
    }

    fn forget_in_flight(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.probe = None;
    }
}
