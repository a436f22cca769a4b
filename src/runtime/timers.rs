//! The timers of one core. Deadlines that are far off are rounded up to a shared slot, so that thousands of them
//! cost one wake-up; short sleeps stay exact. Never early, late by at most a slot.

use std::collections::BTreeMap;
use std::task::Waker;
use std::time::{Duration, Instant};

/// How far off a deadline must be to be rounded, and to which slot.
const SLOTS: [(Duration, Duration); 3] = [
    (Duration::from_secs(60), Duration::from_millis(100)),
    (Duration::from_secs(1), Duration::from_millis(10)),
    (Duration::from_millis(50), Duration::from_millis(1)),
];

/// Names a timer until it fires or is cancelled.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct TimerKey {
    due: Instant,
    serial: u64,
}

pub(super) struct Timers {
    start: Instant,
    serial: u64,
    waiting: BTreeMap<TimerKey, Waker>,
}

impl Timers {
    pub(super) fn new(start: Instant) -> Timers {
        Timers { start, serial: 0, waiting: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, now: Instant, deadline: Instant, waker: Waker) -> TimerKey {
        self.serial += 1;
        let key = TimerKey { due: self.slot(now, deadline), serial: self.serial };
        self.waiting.insert(key, waker);
        key
    }

    /// Whether it was still waiting.
    pub(super) fn cancel(&mut self, key: TimerKey) -> bool {
        self.waiting.remove(&key).is_some()
    }

    /// Another task waits for this timer now.
    pub(super) fn set_waker(&mut self, key: TimerKey, waker: &Waker) {
        if let Some(known) = self.waiting.get_mut(&key) {
            known.clone_from(waker);
        }
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        self.waiting.first_key_value().map(|(key, _)| key.due)
    }

    pub(super) fn take_due(&mut self, now: Instant, out: &mut Vec<Waker>) {
        while let Some(entry) = self.waiting.first_entry() {
            if entry.key().due > now {
                break;
            }
            out.push(entry.remove());
        }
    }

    fn slot(&self, now: Instant, deadline: Instant) -> Instant {
        let ahead = deadline.saturating_duration_since(now);
        let Some((_, slot)) = SLOTS.iter().find(|(from, _)| ahead >= *from) else { return deadline };
        let offset = deadline.saturating_duration_since(self.start).as_nanos();
        let rounded = offset.div_ceil(slot.as_nanos()) * slot.as_nanos();
        let more = Duration::from_nanos(u64::try_from(rounded - offset).unwrap_or(0));
        deadline.checked_add(more).unwrap_or(deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn far_deadlines_share_slots_and_are_never_early() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let waker = Waker::noop();
        for ms in [3, 60, 999, 1_001, 59_999, 60_001, 86_400_003] {
            let deadline = start + Duration::from_millis(ms) + Duration::from_nanos(1);
            let key = timers.insert(start, deadline, waker.clone());
            assert!(key.due >= deadline);
            assert!(key.due - deadline < Duration::from_millis(100));
        }
        let a = timers.insert(start, start + Duration::from_millis(5_001), waker.clone());
        let b = timers.insert(start, start + Duration::from_millis(5_009), waker.clone());
        assert_eq!(a.due, b.due);
        let exact = timers.insert(start, start + Duration::from_micros(700), waker.clone());
        assert_eq!(exact.due, start + Duration::from_micros(700));
    }

    #[test]
    fn due_timers_come_in_order_and_cancelled_ones_do_not() {
        let start = Instant::now();
        let mut timers = Timers::new(start);
        let first = timers.insert(start, start + Duration::from_millis(2), Waker::noop().clone());
        timers.insert(start, start + Duration::from_millis(1), Waker::noop().clone());
        assert!(timers.cancel(first));
        assert!(!timers.cancel(first));
        let mut due = Vec::new();
        timers.take_due(start, &mut due);
        assert!(due.is_empty());
        timers.take_due(start + Duration::from_millis(5), &mut due);
        assert_eq!(due.len(), 1);
        assert_eq!(timers.next_due(), None);
    }
}
