//! A server's own clock: monotonic, starts anywhere, and runs up to a tenth too fast or too slow.

use std::time::Duration;

use crate::queue::Time;

/// Maps virtual time to what one server's clock shows.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Local nanoseconds in a million virtual ones.
    rate_ppm: u64,
    origin: Time,
}

const MILLION: u64 = 1_000_000;

impl Clock {
    /// A clock that starts at `origin` of its own time when virtual time is 0.
    pub fn new(rate_ppm: u64, origin: Time) -> Clock {
        Clock { rate_ppm, origin }
    }

    /// What the clock shows.
    pub fn local(&self, now: Time) -> Duration {
        Duration::from_nanos(self.origin + scale(now, self.rate_ppm, MILLION))
    }

    /// When the clock will show `local`, or a moment after.
    pub fn when(&self, local: Duration) -> Time {
        let since = (local.as_nanos() as u64).saturating_sub(self.origin);
        scale(since, MILLION, self.rate_ppm) + 1
    }
}

fn scale(value: u64, by: u64, of: u64) -> u64 {
    (u128::from(value) * u128::from(by) / u128::from(of)) as u64
}
