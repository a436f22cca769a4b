//! A server's own clock: monotonic, starts anywhere, and runs up to a tenth too fast or too slow.

use std::time::Duration;

use crate::queue::Time;

/// Maps virtual time to what one server's clock shows.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Local nanoseconds in a million virtual ones.
    rate_ppm: u64,
    origin: Time,
    /// How far it has leapt ahead, and how far it is behind because it stood still, nanoseconds.
    ahead: Time,
    behind: Time,
}

const MILLION: u64 = 1_000_000;

impl Clock {
    /// A clock that starts at `origin` of its own time when virtual time is 0.
    pub fn new(rate_ppm: u64, origin: Time) -> Clock {
        Clock { rate_ppm, origin, ahead: 0, behind: 0 }
    }

    /// What the clock shows.
    pub fn local(&self, now: Time) -> Duration {
        let shown = self.origin + self.ahead + scale(now, self.rate_ppm, MILLION);
        Duration::from_nanos(shown.saturating_sub(self.behind))
    }

    /// When the clock will show `local`, or a moment after.
    pub fn when(&self, local: Duration) -> Time {
        let since = (local.as_nanos() as u64 + self.behind).saturating_sub(self.origin + self.ahead);
        scale(since, MILLION, self.rate_ppm) + 1
    }

    /// It leaps ahead.
    pub fn leap(&mut self, by: Time) {
        self.ahead += by;
    }

    /// It shows at `now` what it showed at `then`: its machine slept.
    pub fn slept(&mut self, then: Time, now: Time) {
        self.behind += scale(now, self.rate_ppm, MILLION) - scale(then, self.rate_ppm, MILLION);
    }
}

fn scale(value: u64, by: u64, of: u64) -> u64 {
    (u128::from(value) * u128::from(by) / u128::from(of)) as u64
}
