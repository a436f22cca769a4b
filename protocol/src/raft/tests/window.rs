//! Properties of what is on its way to one server, under any order of answers, losses, cuts of the log and time.

use std::time::Duration;

use proptest::prelude::*;

use super::super::progress::Progress;
use super::super::*;
use super::one::ms;

const GRACE: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug)]
enum Step {
    /// The leader appends so many entries of this size.
    Append(u64, usize),
    Send,
    /// The oldest message arrives, or is lost.
    Arrive(bool),
    /// The follower's disk finishes what it has.
    Durable,
    /// A sign of life goes there and back.
    Round,
    /// The log is cut behind what is this far before its end.
    Cut(u64),
    /// The follower loses what was not durable.
    Crash,
    /// It was sent a snapshot.
    Snapshot(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (1u64..6, 0usize..3000).prop_map(|(count, size)| Step::Append(count, size)),
        3 => Just(Step::Send),
        4 => any::<bool>().prop_map(Step::Arrive),
        1 => Just(Step::Arrive(true)),
        2 => Just(Step::Durable),
        3 => Just(Step::Round),
        1 => (0u64..20).prop_map(Step::Cut),
        1 => Just(Step::Crash),
        1 => any::<bool>().prop_map(Step::Snapshot),
    ]
}

/// A leader's log and its view of one follower, and the follower as it is. Both logs are of one term, so they agree as far as both go.
struct Pair {
    now: Now,
    log: LogView,
    limits: Limits,
    progress: Progress,
    wire: Vec<(Position, u64)>,
    received: u64,
    durable: u64,
    began: Now,
}

impl Pair {
    fn new() -> Pair {
        let limits = Limits {
            message_bytes: 4000,
            in_flight_messages: 5,
            in_flight_bytes: 12_000,
            ..Limits::default()
        };
        Pair {
            now: ms(0),
            log: LogView::new(Position::default()),
            limits,
            progress: Progress::new(ms(0), 1),
            wire: Vec::new(),
            received: 0,
            durable: 0,
            began: ms(0),
        }
    }

    fn send(&mut self) {
        while let Some(range) = self.progress.take_range(self.now, &self.log, &self.limits) {
            assert!(self.progress.state != PeerState::Snapshot);
            assert!(self.log.holds(range.0) && range.0.index < range.1 && range.1 <= self.log.last().index);
            self.wire.push(range);
        }
    }

    fn answer(&mut self, prev: Position) {
        if prev.index > self.received {
            let hint = Position::new(self.received, u64::from(self.received > 0));
            self.progress.rejected(prev.index, hint, &self.log);
        } else {
            self.progress.accepted(self.durable, self.received, self.began, GRACE);
        }
    }

    fn run(&mut self, step: Step) {
        self.now += ms(20);
        match step {
            Step::Append(count, size) => {
                for _ in 0..count {
                    self.log.push(Position::new(self.log.last().index + 1, 1), size);
                }
            }
            Step::Send => self.send(),
            Step::Arrive(arrives) if !self.wire.is_empty() => {
                let (prev, last) = self.wire.remove(0);
                if arrives {
                    let fits = prev.index <= self.received;
                    self.received = if fits { self.received.max(last) } else { self.received };
                    if !fits {
                        self.answer(prev);
                    }
                }
            }
            Step::Durable => {
                self.durable = self.received;
                self.progress.accepted(self.durable, self.received, self.began, GRACE);
            }
            Step::Round => {
                self.began = self.now;
                self.answer(self.progress.prev(&self.log));
            }
            Step::Cut(back) => self.log.cut(self.log.last().index.saturating_sub(back) + 1),
            Step::Crash => self.received = self.durable,
            Step::Snapshot(arrives) if self.progress.state == PeerState::Snapshot => {
                let base = self.log.base().index;
                if arrives && base > self.durable {
                    (self.received, self.durable) = (self.received.max(base), base);
                }
                self.progress.snapshot_sent(arrives.then_some(base));
            }
            Step::Arrive(_) | Step::Snapshot(_) => {}
        }
        self.check();
    }

    fn check(&self) {
        let (messages, bytes) = self.progress.in_flight();
        assert!(messages <= self.limits.in_flight_messages + 1, "{messages} messages");
        // The last message may be as large as one may be, or one entry that is larger.
        assert!(bytes <= self.limits.in_flight_bytes + self.limits.message_bytes + 8192, "{bytes} bytes");
        assert!(self.progress.durable <= self.durable, "it believes too much");
        assert!(
            self.progress.next > self.progress.durable && self.progress.next <= self.log.last().index + 1
        );
    }
}

proptest! {
    /// Bounds hold at every step, and once nothing is lost any more, the follower gets all.
    #[test]
    fn windows_are_bounded_and_get_there(steps in proptest::collection::vec(step(), 1..200)) {
        let mut pair = Pair::new();
        for step in steps {
            pair.run(step);
        }
        for _ in 0..60 {
            pair.run(Step::Send);
            while !pair.wire.is_empty() {
                pair.run(Step::Arrive(true));
            }
            for step in [Step::Durable, Step::Round, Step::Snapshot(true)] {
                pair.run(step);
            }
        }
        prop_assert_eq!(pair.durable, pair.log.last().index);
        prop_assert_eq!(pair.progress.durable, pair.durable);
    }
}
