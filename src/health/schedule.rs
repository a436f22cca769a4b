//! When checks run: pure bookkeeping, driven by the caller with `now` and a source of randomness.
//!
//! The first run comes after a random part of the interval, so that a thousand checks registered together do
//! not run together; after that a check keeps its own fixed beat. At most one run of a check is in flight: a beat
//! that falls into a run is skipped, never queued. At most [`RUNS_IN_FLIGHT_MAX`] runs are in flight in all; the
//! others wait in the order in which they became due.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Most runs in flight at a time on one agent. Further due checks wait their turn, first come first served.
pub const RUNS_IN_FLIGHT_MAX: usize = 128;

/// Names one registration of a check; never used twice.
pub type Ticket = u64;

/// The scheduler.
#[derive(Default)]
pub struct Schedule {
    entries: HashMap<Ticket, Entry>,
    due: BinaryHeap<Reverse<(Instant, Ticket)>>,
    waiting: VecDeque<Ticket>,
    in_flight: usize,
    next_ticket: Ticket,
    skipped: u64,
}

struct Entry {
    interval: Duration,
    state: Beat,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beat {
    Idle,
    Waiting,
    Running,
}

impl Schedule {
    /// Adds a check. `part` is a random fraction in 0..1: the first run comes after that part of `interval`.
    pub fn add(&mut self, now: Instant, interval: Duration, part: f64) -> Ticket {
        assert!(!interval.is_zero(), "a scheduled check has an interval");
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let first = now + interval.mul_f64(part.clamp(0.0, 1.0));
        self.due.push(Reverse((first, ticket)));
        self.entries.insert(ticket, Entry { interval, state: Beat::Idle });
        ticket
    }

    /// Forgets a check. A run in flight still reports [`Schedule::finished`].
    pub fn remove(&mut self, ticket: Ticket) {
        // The heap and the queue may still name it: they skip what they do not find.
        self.entries.remove(&ticket);
    }

    /// Appends the checks to start now. Call it at [`Schedule::next_deadline`] and after each `finished`.
    pub fn take_due(&mut self, now: Instant, out: &mut Vec<Ticket>) {
        while let Some(Reverse((at, ticket))) = self.due.peek().copied() {
            if at > now {
                break;
            }
            self.due.pop();
            self.beat(now, at, ticket);
        }
        while self.in_flight < RUNS_IN_FLIGHT_MAX {
            let Some(ticket) = self.waiting.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&ticket) else { continue };
            entry.state = Beat::Running;
            self.in_flight += 1;
            out.push(ticket);
        }
    }

    /// One beat of one check: queue it unless it is still busy with the last one, and set the next beat.
    fn beat(&mut self, now: Instant, at: Instant, ticket: Ticket) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        match entry.state {
            Beat::Idle => {
                entry.state = Beat::Waiting;
                self.waiting.push_back(ticket);
            }
            Beat::Waiting | Beat::Running => self.skipped += 1,
        }
        // Beats missed while the process slept are skipped, the rhythm is kept.
        let late = now.saturating_duration_since(at).as_nanos();
        let missed = late / entry.interval.as_nanos();
        self.skipped += u64::try_from(missed).unwrap_or(u64::MAX);
        let steps = u32::try_from(missed + 1).unwrap_or(u32::MAX);
        self.due.push(Reverse((at + entry.interval.saturating_mul(steps), ticket)));
    }

    /// A run that [`Schedule::take_due`] handed out has ended. Returns whether the check is still registered, that
    /// is whether its result counts.
    pub fn finished(&mut self, ticket: Ticket) -> bool {
        assert!(self.in_flight > 0, "a run ends once");
        self.in_flight -= 1;
        match self.entries.get_mut(&ticket) {
            Some(entry) => {
                entry.state = Beat::Idle;
                true
            }
            None => false,
        }
    }

    /// When to call [`Schedule::take_due`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Runs in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Due checks that wait for a slot.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Checks scheduled.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Beats that were skipped because the run before was not over.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn due(schedule: &mut Schedule, now: Instant) -> Vec<Ticket> {
        let mut out = Vec::new();
        schedule.take_due(now, &mut out);
        out
    }

    #[test]
    fn the_first_run_is_jittered_and_the_beat_is_fixed() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let ticket = schedule.add(start, 10 * SECOND, 0.25);
        assert_eq!(schedule.next_deadline(), Some(start + Duration::from_millis(2500)));
        assert!(due(&mut schedule, start + 2 * SECOND).is_empty());
        // Served a little late: the next beat is counted from the beat, not from the delay.
        assert_eq!(due(&mut schedule, start + Duration::from_millis(2600)), [ticket]);
        assert_eq!(schedule.next_deadline(), Some(start + Duration::from_millis(12_500)));
    }

    #[test]
    fn a_beat_during_a_run_is_skipped() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let ticket = schedule.add(start, SECOND, 0.0);
        assert_eq!(due(&mut schedule, start), [ticket]);
        assert!(due(&mut schedule, start + SECOND).is_empty());
        assert_eq!(schedule.skipped(), 1);
        assert!(schedule.finished(ticket));
        assert!(due(&mut schedule, start + SECOND).is_empty(), "a skipped beat is not made up for");
        assert_eq!(due(&mut schedule, start + 2 * SECOND), [ticket]);
    }

    #[test]
    fn a_long_pause_skips_beats_and_keeps_the_rhythm() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let ticket = schedule.add(start, SECOND, 0.5);
        assert_eq!(due(&mut schedule, start + 60 * SECOND), [ticket]);
        assert_eq!(schedule.next_deadline(), Some(start + Duration::from_millis(60_500)));
    }

    #[test]
    fn a_removed_check_neither_runs_nor_counts() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let running = schedule.add(start, SECOND, 0.0);
        let idle = schedule.add(start, SECOND, 0.5);
        assert_eq!(due(&mut schedule, start), [running]);
        schedule.remove(running);
        schedule.remove(idle);
        assert!(!schedule.finished(running));
        assert!(due(&mut schedule, start + 5 * SECOND).is_empty());
        assert_eq!(schedule.in_flight(), 0);
    }

    /// A thousand checks that all hang for three seconds, on one agent, in virtual time: never more runs than the
    /// limit, no check starves, no queue grows beyond one entry per check.
    #[test]
    fn a_thousand_slow_checks_share_the_slots_fairly() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        let tickets: Vec<_> =
            (0..1000).map(|n| schedule.add(start, 10 * SECOND, n as f64 / 1000.0)).collect();
        let mut runs: HashMap<Ticket, u32> = HashMap::new();
        let mut running: VecDeque<(Instant, Ticket)> = VecDeque::new();
        let mut now = start;
        while now < start + 120 * SECOND {
            while running.front().is_some_and(|(end, _)| *end <= now) {
                let (_, ticket) = running.pop_front().expect("checked");
                schedule.finished(ticket);
            }
            for ticket in due(&mut schedule, now) {
                *runs.entry(ticket).or_default() += 1;
                running.push_back((now + 3 * SECOND, ticket));
            }
            assert!(schedule.in_flight() <= RUNS_IN_FLIGHT_MAX);
            assert!(schedule.waiting() <= tickets.len());
            now += Duration::from_millis(10);
        }
        // 128 slots of 3 s carry 42 runs a second; 1,000 checks ask for 100 a second.
        let (least, most) = tickets
            .iter()
            .map(|t| runs.get(t).copied().unwrap_or(0))
            .fold((u32::MAX, 0), |(lo, hi), n| (lo.min(n), hi.max(n)));
        assert!(least >= 3 && most <= least + 2, "unfair: {least}..{most}");
        assert!(schedule.skipped() > 0);
    }

    #[test]
    fn a_thousand_quick_checks_all_run_on_time() {
        let start = Instant::now();
        let mut schedule = Schedule::default();
        for n in 0..1000 {
            schedule.add(start, 10 * SECOND, n as f64 / 1000.0);
        }
        let mut ran = 0;
        let mut now = start;
        while now < start + 30 * SECOND {
            for ticket in due(&mut schedule, now) {
                ran += 1;
                schedule.finished(ticket);
            }
            now += Duration::from_millis(10);
        }
        assert_eq!((ran, schedule.skipped()), (3000, 0));
    }
}
