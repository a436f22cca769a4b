//! Waiting for something to become true, without guessing how long it takes.

use std::time::{Duration, Instant};

/// Time between two looks.
pub const PAUSE: Duration = Duration::from_millis(20);

/// Calls `look` until it gives a value, at most for `limit`; panics with `what` afterwards.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(start.elapsed() < limit, "still waiting after {limit:?}: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// As [`until`], for a condition.
pub fn until_true(what: &str, limit: Duration, mut look: impl FnMut() -> bool) {
    until(what, limit, || look().then_some(()));
}
