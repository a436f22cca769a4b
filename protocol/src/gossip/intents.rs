//! Intents: members say that they join or leave before they do, on a Lamport clock (serf: `messageJoin`, `messageLeave`). So a member
//! that falls silent after it has said so has left and not failed, and an old word about it is known to be old.
//!
//! Here are the clock, and the intents of members that are not known yet: the word about a member may come before the member. When
//! it becomes known soon after, the newest intent for it counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::clock::{Clock, Time};
use super::message::IntentKind;
use crate::entry::Now;

/// So long an intent waits for its member (serf: `RecentIntentTimeout`).
pub const RECENT_INTENT_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Intents that wait. Beyond, the one that has waited longest is dropped: the state of another member will tell the same.
pub const RECENT_INTENTS_MAX: usize = 4096;

/// The clock of intents, and those that wait for their members.
#[derive(Clone, Debug, Default)]
pub struct Intents {
    /// Moved by every intent, whether its member is known or not.
    pub clock: Clock,
    waiting: BTreeMap<Arc<str>, Waiting>,
    /// When each is dropped.
    ends: BTreeSet<(Now, Arc<str>)>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    ltime: Time,
    kind: IntentKind,
    ends: Now,
}

impl Intents {
    /// Hears of an intent of a member that is not known. Whether it is new: others are to be told.
    pub fn hear(&mut self, now: Now, ltime: Time, name: &str, kind: IntentKind) -> bool {
        self.drop_old(now);
        if self.waiting.get(name).is_some_and(|waiting| waiting.ltime >= ltime) {
            return false;
        }
        self.remove(name);
        if self.waiting.len() >= RECENT_INTENTS_MAX {
            self.drop_first();
        }
        let (name, ends) = (Arc::<str>::from(name), now + RECENT_INTENT_TIMEOUT);
        self.waiting.insert(name.clone(), Waiting { ltime, kind, ends });
        self.ends.insert((ends, name));
        assert!(self.waiting.len() <= RECENT_INTENTS_MAX, "intents that wait have an end");
        debug_assert_eq!(self.waiting.len(), self.ends.len());
        true
    }

    /// A member becomes known: the intent that has waited for it.
    pub fn take(&mut self, now: Now, name: &str) -> Option<(Time, IntentKind)> {
        self.drop_old(now);
        self.remove(name).map(|waiting| (waiting.ltime, waiting.kind))
    }

    fn remove(&mut self, name: &str) -> Option<Waiting> {
        let (name, waiting) = self.waiting.remove_entry(name)?;
        self.ends.remove(&(waiting.ends, name));
        Some(waiting)
    }

    fn drop_old(&mut self, now: Now) {
        while self.ends.first().is_some_and(|(ends, _)| *ends < now) {
            self.drop_first();
        }
    }

    fn drop_first(&mut self) {
        if let Some((_, name)) = self.ends.pop_first() {
            self.waiting.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: Now = Now::ZERO;
    use IntentKind::{Join, Leave, Prune};

    #[test]
    fn the_newest_intent_waits_for_its_member() {
        let mut intents = Intents::default();
        assert!(intents.hear(START, Time(3), "a", Leave));
        assert!(!intents.hear(START, Time(3), "a", Join), "of one time the first counts");
        assert!(!intents.hear(START, Time(2), "a", Prune));
        assert!(intents.hear(START, Time(4), "a", Join));
        assert_eq!(intents.take(START, "b"), None);
        assert_eq!(intents.take(START, "a"), Some((Time(4), Join)));
        assert_eq!(intents.take(START, "a"), None);
    }

    #[test]
    fn an_intent_does_not_wait_for_ever() {
        let mut intents = Intents::default();
        intents.hear(START, Time(3), "a", Leave);
        intents.hear(START + Duration::from_secs(1), Time(5), "b", Leave);
        intents.hear(START + Duration::from_secs(2), Time(6), "a", Join);
        let end = START + Duration::from_secs(1) + RECENT_INTENT_TIMEOUT;
        assert_eq!(intents.clone().take(end, "b"), Some((Time(5), Leave)));
        assert_eq!(intents.take(end + Duration::from_millis(1), "b"), None);
        assert_eq!(
            intents.take(end + Duration::from_millis(1), "a"),
            Some((Time(6), Join)),
            "each for itself"
        );
    }

    #[test]
    fn of_too_many_the_oldest_is_dropped() {
        let mut intents = Intents::default();
        for count in 0..=RECENT_INTENTS_MAX as u64 {
            assert!(intents.hear(START + Duration::from_millis(count), Time(9), &count.to_string(), Join));
        }
        assert_eq!(intents.waiting.len(), RECENT_INTENTS_MAX);
        assert_eq!(intents.take(START, "0"), None);
        assert!(intents.take(START, "1").is_some());
    }

    proptest! {
        #[test]
        fn both_orders_hold_the_same(heard in prop::collection::vec((0u64..400, 0u64..9, 0u8..5, any::<bool>()), 0..200)) {
            let mut intents = Intents::default();
            let mut now = START;
            for (later, ltime, name, take) in heard {
                now += Duration::from_secs(later);
                if take {
                    intents.take(now, &name.to_string());
                } else {
                    intents.hear(now, Time(ltime), &name.to_string(), Leave);
                }
                let ends: BTreeSet<_> = intents.waiting.iter().map(|(name, waiting)| (waiting.ends, name.clone())).collect();
                prop_assert_eq!(&ends, &intents.ends);
                prop_assert!(ends.iter().all(|(ends, _)| *ends >= now));
            }
        }
    }
}
