//! When checks run: pure bookkeeping, driven by the caller with `now` and a source of randomness.
//!
//! The first run comes after a random part of the interval, so that a thousand checks registered together do
//! not run together; after that a check keeps its own fixed beat. At most one run of a check is in flight: a beat
//! that falls into a run is skipped, never queued.
//!
//! Runs in flight are bounded, programs and network probes each by a bound of their own ([`Bounds`]). Within a bound, checks
//! whose last run was short and all others go on lanes of their own, and each lane leaves a part of the places to the other:
//! targets that hang until their timeout cannot keep those from running that answer. A lane is first come, first served.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::time::{Duration, Instant};

/// Most programs that checks run at a time: each is a process, and they share the machine with what they look at.
pub const PROGRAMS_MAX: usize = 128;
/// Most network probes at a time: each is a socket. [`Bounds::within`] makes it fewer where few files may be open.
pub const PROBES_MAX: usize = 8192;
/// One file in so many that may be open is for a probe. Clients have most of the others.
const FILES_PER_PROBE: u64 = 8;
/// A run that takes no longer is short. What does is likely to hang, and does so again.
const SHORT_RUN: Duration = Duration::from_secs(1);
/// One place in so many is kept from a lane, for the other.
const KEPT_PART: usize = 4;

/// Names one registration of a check; never used twice.
pub type Ticket = u64;

/// What a run costs, and so which bound it is under.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A process, here or in a container.
    Program,
    /// A socket.
    Probe,
}

/// How many runs may be in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Of programs.
    pub programs: usize,
    /// Of network probes.
    pub probes: usize,
}

impl Bounds {
    /// For a process that may have so many files open.
    pub fn within(open_files: u64) -> Bounds {
        let probes = usize::try_from(open_files / FILES_PER_PROBE).unwrap_or(usize::MAX);
        Bounds { programs: PROGRAMS_MAX, probes: probes.clamp(PROGRAMS_MAX, PROBES_MAX) }
    }
}

/// The scheduler.
pub struct Schedule {
    entries: HashMap<Ticket, Entry>,
    due: BinaryHeap<Reverse<(Instant, Ticket)>>,
    programs: Road,
    probes: Road,
    /// Runs in flight, also of checks that are gone.
    running: HashMap<Ticket, Running>,
    next_ticket: Ticket,
    skipped: u64,
}

struct Entry {
    interval: Duration,
    state: Beat,
    kind: Kind,
    /// Its last run was short. None is not.
    is_short: bool,
}

struct Running {
    since: Instant,
    kind: Kind,
    is_short: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Beat {
    Idle,
    Waiting,
    Running,
}

/// What is under one bound.
struct Road {
    max: usize,
    short: Lane,
    long: Lane,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<Ticket>,
    in_flight: usize,
}

impl Road {
    fn new(max: usize) -> Road {
        assert!(max > 0, "a bound lets something run");
        Road { max, short: Lane::default(), long: Lane::default() }
    }

    fn lane(&mut self, is_short: bool) -> &mut Lane {
        if is_short { &mut self.short } else { &mut self.long }
    }

    /// Whoever may go now, and on which lane.
    fn pop(&mut self) -> Option<(Ticket, bool)> {
        if self.short.in_flight + self.long.in_flight >= self.max {
            return None;
        }
        let share = self.max - self.max / KEPT_PART;
        for is_short in [true, false] {
            let lane = self.lane(is_short);
            if lane.in_flight < share
                && let Some(ticket) = lane.waiting.pop_front()
            {
                return Some((ticket, is_short));
            }
        }
        None
    }
}

impl Schedule {
    /// An empty one.
    pub fn new(bounds: Bounds) -> Schedule {
        Schedule {
            entries: HashMap::new(),
            due: BinaryHeap::new(),
            programs: Road::new(bounds.programs),
            probes: Road::new(bounds.probes),
            running: HashMap::new(),
            next_ticket: 0,
            skipped: 0,
        }
    }

    /// Adds a check. `part` is a random fraction in 0..1: the first run comes after that part of `interval`.
    pub fn add(&mut self, now: Instant, interval: Duration, part: f64, kind: Kind) -> Ticket {
        assert!(!interval.is_zero(), "a scheduled check has an interval");
        self.next_ticket += 1;
        let ticket = self.next_ticket;
        let first = now + interval.mul_f64(part.clamp(0.0, 1.0));
        self.due.push(Reverse((first, ticket)));
        self.entries.insert(ticket, Entry { interval, state: Beat::Idle, kind, is_short: false });
        ticket
    }

    /// Forgets a check. A run in flight still reports [`Schedule::finished`].
    pub fn remove(&mut self, ticket: Ticket) {
        // The heap and the lanes may still name it: they skip what they do not find.
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
        for kind in [Kind::Probe, Kind::Program] {
            while let Some((ticket, is_short)) = self.road(kind).pop() {
                let Some(entry) = self.entries.get_mut(&ticket) else { continue };
                entry.state = Beat::Running;
                self.running.insert(ticket, Running { since: now, kind, is_short });
                self.road(kind).lane(is_short).in_flight += 1;
                out.push(ticket);
            }
        }
    }

    fn road(&mut self, kind: Kind) -> &mut Road {
        match kind {
            Kind::Program => &mut self.programs,
            Kind::Probe => &mut self.probes,
        }
    }

    /// One beat of one check: queue it unless it is still busy with the last one, and set the next beat.
    fn beat(&mut self, now: Instant, at: Instant, ticket: Ticket) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        // Beats missed while the process slept are skipped, the rhythm is kept.
        let late = now.saturating_duration_since(at).as_nanos();
        let missed = late / entry.interval.as_nanos();
        self.skipped += u64::try_from(missed).unwrap_or(u64::MAX);
        let steps = u32::try_from(missed + 1).unwrap_or(u32::MAX);
        self.due.push(Reverse((at + entry.interval.saturating_mul(steps), ticket)));
        if entry.state != Beat::Idle {
            self.skipped += 1;
            return;
        }
        entry.state = Beat::Waiting;
        let (kind, is_short) = (entry.kind, entry.is_short);
        self.road(kind).lane(is_short).waiting.push_back(ticket);
    }

    /// A run that [`Schedule::take_due`] handed out has ended. Returns whether the check is still registered, that
    /// is whether its result counts.
    pub fn finished(&mut self, now: Instant, ticket: Ticket) -> bool {
        let run = self.running.remove(&ticket).expect("a run ends once");
        self.road(run.kind).lane(run.is_short).in_flight -= 1;
        let Some(entry) = self.entries.get_mut(&ticket) else { return false };
        entry.state = Beat::Idle;
        entry.is_short = now.saturating_duration_since(run.since) <= SHORT_RUN;
        true
    }

    /// When to call [`Schedule::take_due`] next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((at, _))| *at)
    }

    /// Runs in flight.
    pub fn in_flight(&self) -> usize {
        self.running.len()
    }

    /// Due checks that wait for a place.
    pub fn waiting(&self) -> usize {
        let lanes = [&self.programs, &self.probes].into_iter().flat_map(|road| [&road.short, &road.long]);
        lanes.map(|lane| lane.waiting.len()).sum()
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
    const STEP: Duration = Duration::from_millis(10);

    fn schedule() -> Schedule {
        Schedule::new(Bounds::within(1 << 20))
    }

    fn due(schedule: &mut Schedule, now: Instant) -> Vec<Ticket> {
        let mut out = Vec::new();
        schedule.take_due(now, &mut out);
        out
    }

    /// Lets virtual time pass; each run takes what `length` says. How often each check ran.
    fn pass(
        schedule: &mut Schedule,
        start: Instant,
        span: Duration,
        length: impl Fn(Ticket) -> Duration,
    ) -> HashMap<Ticket, u32> {
        let mut runs: HashMap<Ticket, u32> = HashMap::new();
        let mut running: BinaryHeap<Reverse<(Instant, Ticket)>> = BinaryHeap::new();
        let mut now = start;
        while now < start + span {
            while let Some(Reverse((end, ticket))) = running.peek().copied().filter(|run| run.0.0 <= now) {
                running.pop();
                schedule.finished(end, ticket);
            }
            for ticket in due(schedule, now) {
                *runs.entry(ticket).or_default() += 1;
                running.push(Reverse((now + length(ticket), ticket)));
            }
            assert!(schedule.in_flight() <= schedule.programs.max + schedule.probes.max);
            assert!(schedule.waiting() <= schedule.len());
            now += STEP;
        }
        runs
    }

    #[test]
    fn the_first_run_is_jittered_and_the_beat_is_fixed() {
        let start = Instant::now();
        let mut schedule = schedule();
        let ticket = schedule.add(start, 10 * SECOND, 0.25, Kind::Probe);
        assert_eq!(schedule.next_deadline(), Some(start + Duration::from_millis(2500)));
        assert!(due(&mut schedule, start + 2 * SECOND).is_empty());
        // Served a little late: the next beat is counted from the beat, not from the delay.
        assert_eq!(due(&mut schedule, start + Duration::from_millis(2600)), [ticket]);
        assert_eq!(schedule.next_deadline(), Some(start + Duration::from_millis(12_500)));
    }

    #[test]
    fn a_beat_during_a_run_is_skipped() {
        let start = Instant::now();
        let mut schedule = schedule();
        let ticket = schedule.add(start, SECOND, 0.0, Kind::Probe);
        assert_eq!(due(&mut schedule, start), [ticket]);
        assert!(due(&mut schedule, start + SECOND).is_empty());
        assert_eq!(schedule.skipped(), 1);
        assert!(schedule.finished(start + SECOND, ticket));
        assert!(due(&mut schedule, start + SECOND).is_empty(), "a skipped beat is not made up for");
        assert_eq!(due(&mut schedule, start + 2 * SECOND), [ticket]);
    }

    #[test]
    fn a_long_pause_skips_beats_and_keeps_the_rhythm() {
        let start = Instant::now();
        let mut schedule = schedule();
        let ticket = schedule.add(start, SECOND, 0.5, Kind::Probe);
        assert_eq!(due(&mut schedule, start + 60 * SECOND), [ticket]);
        assert_eq!(schedule.next_deadline(), Some(start + Duration::from_millis(60_500)));
    }

    #[test]
    fn a_removed_check_neither_runs_nor_counts() {
        let start = Instant::now();
        let mut schedule = schedule();
        let running = schedule.add(start, SECOND, 0.0, Kind::Program);
        let idle = schedule.add(start, SECOND, 0.5, Kind::Program);
        assert_eq!(due(&mut schedule, start), [running]);
        schedule.remove(running);
        schedule.remove(idle);
        assert!(!schedule.finished(start, running));
        assert!(due(&mut schedule, start + 5 * SECOND).is_empty());
        assert_eq!((schedule.in_flight(), schedule.programs.long.in_flight), (0, 0));
    }

    /// A thousand programs that all hang for three seconds: never more than their lane holds, none starves, no queue
    /// grows beyond one entry per check.
    #[test]
    fn a_thousand_slow_programs_share_the_places_fairly() {
        let start = Instant::now();
        let mut schedule = schedule();
        let tickets: Vec<_> =
            (0..1000).map(|n| schedule.add(start, 10 * SECOND, n as f64 / 1000.0, Kind::Program)).collect();
        let runs = pass(&mut schedule, start, 120 * SECOND, |_| 3 * SECOND);
        // 96 places of 3 s carry 32 runs a second; 1,000 checks ask for 100 a second.
        let (least, most) = tickets
            .iter()
            .map(|t| runs.get(t).copied().unwrap_or(0))
            .fold((u32::MAX, 0), |(lo, hi), n| (lo.min(n), hi.max(n)));
        assert!(least >= 3 && most <= least + 2, "unfair: {least}..{most}");
        assert!(schedule.skipped() > 0 && schedule.in_flight() <= PROGRAMS_MAX);
    }

    #[test]
    fn a_thousand_quick_checks_all_run_on_time() {
        let start = Instant::now();
        let mut schedule = schedule();
        for n in 0..1000 {
            schedule.add(start, 10 * SECOND, n as f64 / 1000.0, Kind::Program);
        }
        let runs = pass(&mut schedule, start, 30 * SECOND, |_| STEP);
        assert_eq!((runs.values().sum::<u32>(), schedule.skipped()), (3000, 0));
    }

    /// A thousand targets that accept and say nothing kept one healthy check from running: once a minute, rather than once
    /// a second.
    #[test]
    fn a_healthy_check_is_not_kept_waiting_by_those_that_hang() {
        // Places for all of them; and so few that only the lanes can help: then also of programs.
        let few = Bounds { programs: 4, probes: 4 };
        for (bounds, kind, hanging) in
            [(Bounds::within(1 << 20), Kind::Probe, 1000), (few, Kind::Probe, 15), (few, Kind::Program, 15)]
        {
            let start = Instant::now();
            let mut schedule = Schedule::new(bounds);
            let healthy = schedule.add(start, SECOND, 0.0, kind);
            for n in 0..hanging {
                schedule.add(start, 10 * SECOND, f64::from(n) / f64::from(hanging), kind);
            }
            let length = |ticket| if ticket == healthy { STEP } else { 10 * SECOND };
            let runs = pass(&mut schedule, start, 60 * SECOND, length);
            assert_eq!(runs[&healthy], 60, "{bounds:?} {kind:?}");
            assert!(
                runs.len() == hanging as usize + 1,
                "one of those that hang never ran: {bounds:?} {kind:?}"
            );
        }
    }

    /// Quick checks that fill their lane leave places to the long ones, and programs none to probes.
    #[test]
    fn each_lane_and_each_kind_has_places_of_its_own() {
        let start = Instant::now();
        let mut schedule = Schedule::new(Bounds { programs: 4, probes: 4 });
        let long: Vec<_> = (0..2).map(|_| schedule.add(start, 5 * SECOND, 0.0, Kind::Program)).collect();
        for _ in 0..20 {
            schedule.add(start, SECOND, 0.0, Kind::Program);
        }
        let probe = schedule.add(start, SECOND, 0.0, Kind::Probe);
        let length = |ticket| match ticket {
            _ if long.contains(&ticket) => 3 * SECOND,
            _ if ticket == probe => STEP,
            _ => SECOND - STEP,
        };
        let runs = pass(&mut schedule, start, 60 * SECOND, length);
        assert!(long.iter().all(|ticket| runs[ticket] >= 6), "{runs:?}");
        assert_eq!(runs[&probe], 60);
    }

    #[test]
    fn probes_take_a_part_of_the_files_that_may_be_open() {
        assert_eq!(Bounds::within(1024), Bounds { programs: 128, probes: 128 });
        assert_eq!(Bounds::within(4096).probes, 512);
        assert_eq!(Bounds::within(u64::MAX).probes, PROBES_MAX);
    }
}
