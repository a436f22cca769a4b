//! Lamport clocks: what was said after what, without a clock that all share (Lamport, *Time, Clocks, and the Ordering of Events
//! in a Distributed System*, 1978). Serf has one for intents, one for events and one for queries; so have we.

use std::fmt;

use crate::wire::{Reader, WireError, put_u64};

/// So far ahead of a clock no honest member is: at a thousand events a second it takes 34 years. Serf takes any value,
/// so one message can leave no time for all later ones.
pub const LEAP_MAX: u64 = 1 << 40;

/// A time of a [`Clock`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

impl Time {
    /// The one after it.
    pub fn next(self) -> Time {
        Time(self.0.saturating_add(1))
    }

    /// The one so many before it, or the first of all.
    pub fn before(self, count: u64) -> Time {
        Time(self.0.saturating_sub(count))
    }

    /// Appends it to a message.
    pub fn encode(self, out: &mut Vec<u8>) {
        put_u64(out, self.0);
    }

    /// Reads what [`encode`](Self::encode) has written.
    ///
    /// # Errors
    /// It is cut off.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Time, WireError> {
        reader.u64().map(Time)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A clock that is moved by what its member says and hears.
#[derive(Clone, Debug)]
pub struct Clock(Time);

impl Default for Clock {
    /// Begins at 1, as serf's clocks do: 0 is before everything.
    fn default() -> Clock {
        Clock(Time(1))
    }
}

impl Clock {
    /// The time of what is said next: later than all that was heard.
    pub fn time(&self) -> Time {
        self.0
    }

    /// Takes the time for something that is said now.
    pub fn tick(&mut self) -> Time {
        let time = self.0;
        self.0 = time.next();
        time
    }

    /// Hears of something said at a time. Whether that can be: else nothing has changed, and the message is not to be believed.
    #[must_use]
    pub fn witness(&mut self, time: Time) -> bool {
        if time.0 > self.0.0.saturating_add(LEAP_MAX) {
            return false;
        }
        self.0 = self.0.max(time.next());
        true
    }

    /// Hears what another clock's [`time`](Self::time) is: nothing was said at that time yet.
    #[must_use]
    pub fn witness_clock(&mut self, time: Time) -> bool {
        self.witness(time.before(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_clock_is_one_ahead_of_what_it_has_heard() {
        let mut clock = Clock::default();
        assert_eq!(clock.tick(), Time(1));
        assert_eq!(clock.time(), Time(2));
        assert!(clock.witness(Time(41)));
        assert_eq!(clock.time(), Time(42));
        assert!(clock.witness(Time(3)));
        assert!(clock.witness_clock(Time(42)));
        assert_eq!(clock.time(), Time(42), "older times change nothing");
        assert!(clock.witness_clock(Time(43)));
        assert_eq!(clock.tick(), Time(43));
    }

    #[test]
    fn a_leap_is_not_believed() {
        let mut clock = Clock::default();
        assert!(!clock.witness(Time(u64::MAX)));
        assert!(!clock.witness(Time(LEAP_MAX + 2)));
        assert_eq!(clock.time(), Time(1));
        assert!(clock.witness(Time(LEAP_MAX)), "who comes late catches up at once");
    }

    proptest! {
        #[test]
        fn a_clock_never_goes_back(heard in prop::collection::vec(any::<u64>(), 0..50)) {
            let mut clock = Clock(Time(u64::MAX - LEAP_MAX));
            for time in heard {
                let before = clock.time();
                let believed = clock.witness(Time(time));
                prop_assert!(clock.time() >= before);
                prop_assert!(!believed || clock.time() > Time(time) || time == u64::MAX);
            }
        }
    }
}
