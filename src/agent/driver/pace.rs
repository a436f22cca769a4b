//! How many updates of TTL checks are written at once before they are gathered.
//!
//! A client that tells a status and looks at the catalog next sees what it told: its answer waits for the write. A
//! storm of updates must not become a storm of writes, though. So updates that come faster than writes should are
//! answered when noted, and travel together a few milliseconds later, as Consul's always do.

use std::time::{Duration, Instant};

/// Updates that may hurry before the pace counts.
const BURST: u32 = 64;
/// How often one more may.
const EVERY: Duration = Duration::from_millis(5);

/// A leaky bucket.
#[derive(Default)]
pub(super) struct Pace {
    /// When the bucket will be empty.
    empty_at: Option<Instant>,
}

impl Pace {
    /// Whether one more update may hurry.
    pub(super) fn allows(&mut self, now: Instant) -> bool {
        let empty_at = self.empty_at.map_or(now, |at| at.max(now));
        let allowed = empty_at.duration_since(now) < EVERY * BURST;
        if allowed {
            self.empty_at = Some(empty_at + EVERY);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_may_hurry_and_then_one_every_few_milliseconds() {
        let mut pace = Pace::default();
        let start = Instant::now();
        let allowed = (0..1000).filter(|_| pace.allows(start)).count();
        assert_eq!(allowed as u32, BURST);
        let steady =
            (0..1000u32).filter(|ms| pace.allows(start + Duration::from_millis((*ms).into()))).count();
        assert!((199..=201).contains(&steady), "{steady}");
    }
}
