//! A suspicion and how long it lasts: long at first, shorter with every other member that suspects the same on its own (Lifeguard, IV-B,
//! "dogpile"). So one slow accuser harms nobody, and the truly dead are declared soon.
//!
//! Before it ends, whoever is about to declare the member failed calls it a few times more. Gossip is told to all but for one in e^k (see
//! `broadcast::transmit_limit`), and at a quarter of packets lost to fewer: some hear the suspicion and miss that it was contradicted. The last
//! calls close that gap, which SWIM leaves open.

use std::sync::Arc;
use std::time::Duration;

use super::settings::{CONFIRMERS_MAX, Settings};
use crate::entry::Now;

/// So often a member is called before it counts as failed.
const LAST_CALLS: u32 = 8;

/// Somebody got no answer from a member.
#[derive(Clone, Debug)]
pub(super) struct Suspicion {
    /// Who was first to say so.
    pub by: Arc<str>,
    /// Who has said so since.
    pub confirmed_by: Vec<Arc<str>>,
    began: Now,
    /// When it was called first before the end, and how often.
    called: Option<(Now, u32)>,
    /// How long the last calls go on, from the first to the end.
    calling: Duration,
    shortest: Duration,
    longest: Duration,
    /// With so many confirmations it is as short as can be.
    confirmers: usize,
}

impl Suspicion {
    /// Begins in a pool with `live` members, of which the suspected is one.
    pub fn new(by: Arc<str>, now: Now, live: usize, settings: &Settings) -> Suspicion {
        let shortest = shortest(live, settings);
        let expected = (settings.suspicion_mult.saturating_sub(2) as usize).min(CONFIRMERS_MAX);
        // Without as many others as could confirm it, it would never become shorter (memberlist, `suspectNode`).
        let confirmers = if live.saturating_sub(2) < expected { 0 } else { expected };
        // Long enough that a member which stands still for a moment is not only called while it does.
        let calling = (shortest / 2).max(settings.probe_timeout * 2).min(shortest);
        let longest = if confirmers == 0 { shortest } else { shortest * settings.suspicion_max_mult.max(1) };
        Suspicion {
            by,
            confirmed_by: Vec::new(),
            began: now,
            called: None,
            calling,
            shortest,
            longest,
            confirmers,
        }
    }

    /// Another suspects the same. Whether that is news, and counts.
    pub fn confirm(&mut self, by: &str) -> bool {
        let known = *self.by == *by || self.confirmed_by.iter().any(|other| **other == *by);
        let counts = !known && self.confirmed_by.len() < self.confirmers;
        if counts {
            self.confirmed_by.push(by.into());
        }
        counts
    }

    /// When something is to be done: the member is to be called, or counts as failed.
    pub fn next_at(&self) -> Now {
        match self.called {
            None => self.deadline().saturating_sub(self.calling).max(self.began),
            Some((first, times)) if times < LAST_CALLS => first + self.calling / LAST_CALLS * times,
            // Confirmations may have put the deadline into the past; the calls get their time all the same.
            Some((first, _)) => self.deadline().max(first + self.calling),
        }
    }

    /// Whether a call that comes after so many goes over a stream, too, which loses nothing.
    pub fn by_stream(times: u32) -> bool {
        times.is_multiple_of(LAST_CALLS / 2)
    }

    /// The member is called. How often it was before, since the end is near; none when it was often enough, and counts as failed.
    pub fn call(&mut self, now: Now) -> Option<u32> {
        let (first, times) = self.called.unwrap_or((now, 0));
        self.called = Some((first, times + 1));
        Some(times).filter(|times| *times < LAST_CALLS)
    }

    /// When the member counts as failed, if it has been called by then.
    pub fn deadline(&self) -> Now {
        if self.confirmers == 0 {
            return self.began + self.shortest;
        }
        let share = (self.confirmed_by.len() as f64 + 1.0).ln() / (self.confirmers as f64 + 1.0).ln();
        let span = self.longest - (self.longest - self.shortest).mul_f64(share.min(1.0));
        self.began + span.max(self.shortest)
    }

    /// Time in which this agent stood still does not count.
    pub fn delay(&mut self, by: Duration) {
        self.began += by;
        if let Some((first, _)) = &mut self.called {
            *first += by;
        }
    }
}

/// The shortest suspicion: news must have time to go round, which takes a logarithm of the members (SWIM, 4.2; memberlist:
/// `suspicionTimeout`).
fn shortest(live: usize, settings: &Settings) -> Duration {
    let scale = (live.max(1) as f64).log10().max(1.0);
    (settings.probe_interval * settings.suspicion_mult).mul_f64(scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn confirmations_by_others_shorten_it_down_to_the_least() {
        let mut suspicion = Suspicion::new("a".into(), secs(100), 100, &Settings::lan());
        assert_eq!(suspicion.deadline(), secs(100 + 48));
        assert!(!suspicion.confirm("a"), "who says it twice does not confirm it");
        assert!(suspicion.confirm("b") && !suspicion.confirm("b"));
        let half = suspicion.deadline();
        assert!(half > secs(108) && half < secs(148));
        assert!(suspicion.confirm("c") && !suspicion.confirm("d"), "two confirmations are enough");
        assert_eq!(suspicion.deadline(), secs(108));
        suspicion.delay(secs(5));
        assert_eq!(suspicion.deadline(), secs(113));
    }

    #[test]
    fn the_last_calls_get_their_time_whenever_confirmations_come() {
        let mut suspicion = Suspicion::new("a".into(), secs(100), 100, &Settings::lan());
        assert_eq!(suspicion.next_at(), secs(144));
        assert!(suspicion.confirm("b") && suspicion.confirm("c"));
        assert_eq!(suspicion.next_at(), secs(104), "long past");
        assert_eq!(suspicion.call(secs(120)), Some(0));
        assert_eq!(suspicion.next_at(), Duration::from_millis(120_500));
        (1..8).for_each(|times| assert_eq!(suspicion.call(suspicion.next_at()), Some(times)));
        assert_eq!(suspicion.next_at(), secs(124));
        assert_eq!(suspicion.call(secs(124)), None);
    }

    #[test]
    fn in_a_pool_without_confirmers_it_is_short_at_once() {
        let suspicion = Suspicion::new("a".into(), secs(0), 3, &Settings::lan());
        assert_eq!(suspicion.deadline(), secs(4));
    }
}
