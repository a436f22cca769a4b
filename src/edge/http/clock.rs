//! Time as of one turn of a reactor.

use std::time::{Duration, Instant};

use muster_protocol::http::{DATE_LEN, http_date};

use super::cache::Moment;
use super::limits;
use crate::consensus::Contact;
use crate::metrics::interval;
use crate::runtime::time;

/// Length of a tick of the sweep clock.
const TICK: Duration = Duration::from_millis(100);

/// Read once a turn, so that requests cost no system calls for it.
pub struct Clock {
    start: Instant,
    /// Now.
    pub now: Instant,
    /// When the last request of this turn was answered, or the turn began.
    lap: Instant,
    /// Now, in ticks since the start.
    pub tick: u32,
    /// When connections are next checked for their timeouts.
    pub next_sweep: Instant,
    second: u64,
    /// The `Date` header.
    pub date: [u8; DATE_LEN],
    /// Counts changes of what answers are built from beside the state: of the configuration.
    pub epoch: u64,
    /// How reads stand to the leader, as looked up behind the last bytes that were read.
    pub contact: Contact,
}

impl Clock {
    /// Starts now.
    pub fn start() -> Clock {
        let now = time::now();
        let second = time::unix_now().as_secs();
        let next_sweep = now + limits::SWEEP_INTERVAL;
        Clock {
            start: now,
            now,
            lap: now,
            tick: 0,
            next_sweep,
            second,
            date: http_date(second),
            epoch: 0,
            contact: Contact::default(),
        }
    }

    /// Reads the clocks.
    pub fn turn(&mut self) {
        self.now = time::now();
        self.lap = self.now;
        self.tick = ticks(self.now.saturating_duration_since(self.start));
        let second = time::unix_now().as_secs();
        if second != self.second {
            self.second = second;
            interval::turn(second);
            self.date = http_date(second);
        }
    }

    /// How long the request took that was just answered: the time since the one before it in this turn.
    pub fn lap(&mut self) -> Duration {
        let now = time::now();
        now.saturating_duration_since(std::mem::replace(&mut self.lap, now))
    }

    /// The second that the `Date` header stands for.
    pub fn second(&self) -> u64 {
        self.second
    }

    /// What answers made now have in common.
    pub fn moment<'a>(&'a self, extra: &'a [u8]) -> Moment<'a> {
        Moment { date: &self.date, second: self.second, extra, epoch: self.epoch }
    }

    /// Whether more than `limit` has passed since the tick `since`.
    pub fn is_past(&self, since: u32, limit: Duration) -> bool {
        self.tick.saturating_sub(since) > ticks(limit)
    }
}

fn ticks(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis() / TICK.as_millis()).unwrap_or(u32::MAX)
}
