//! The leader's rest after a write that was refused for now: a full disk, or too many writes. The duties go on, and what needs no write
//! is done meanwhile; only a lost lead ends them.

use std::time::{Duration, Instant};

use crate::consensus::ProposeError;

/// The first rest, and the longest one that refusals in a row grow to.
const SHORTEST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rest {
    until: Option<Instant>,
    length: Duration,
    /// Said already.
    said: String,
}

impl Rest {
    /// Whether it is too early for a write.
    pub fn lasts(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// Notes what became of the duties: a refusal for now is borne.
    ///
    /// # Errors
    /// What must end them.
    pub fn after(&mut self, done: Result<(), ProposeError>, now: Instant) -> Result<(), ProposeError> {
        match done {
            // A refused step of autopilot has asked for a rest itself.
            Ok(()) if self.lasts(now) => {}
            Ok(()) => *self = Rest::default(),
            Err(why @ (ProposeError::DiskFull | ProposeError::TooBusy)) => {
                self.refused(&why.to_string(), now)
            }
            Err(why) => return Err(why),
        }
        Ok(())
    }

    /// Rests, each time twice as long; says why when that is news.
    pub fn refused(&mut self, why: &str, now: Instant) {
        self.length = (self.length * 2).clamp(SHORTEST, LONGEST);
        self.until = Some(now + self.length);
        if self.said != why {
            self.said = why.to_owned();
            tracing::warn!(target: "agent.server", "a duty of the leader has to wait: {why}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::time;

    /// With a full disk the duties began anew four times a second: each time they asked all servers for a barrier, forgot what they
    /// knew of the servers' health and said so.
    #[test]
    fn what_is_refused_for_now_is_borne_with_longer_and_longer_rests() {
        let (mut rest, mut now) = (Rest::default(), time::now());
        let began = now;
        let mut attempts = 0;
        while now < began + Duration::from_secs(60) {
            if !rest.lasts(now) {
                attempts += 1;
                let refusal = if attempts % 2 == 0 { ProposeError::DiskFull } else { ProposeError::TooBusy };
                assert_eq!(rest.after(Err(refusal), now), Ok(()));
            }
            now += Duration::from_millis(100);
        }
        assert!((8..=14).contains(&attempts), "{attempts} in a minute");
        now += LONGEST;
        assert_eq!(rest.after(Ok(()), now), Ok(()));
        rest.refused("once", now);
        assert!(rest.lasts(now) && !rest.lasts(now + SHORTEST), "it begins with a short one again");
        assert_eq!(rest.after(Ok(()), now), Ok(()));
        assert!(rest.lasts(now), "a step of autopilot was refused, and nothing else was to do");
    }

    #[test]
    fn a_lost_lead_ends_the_duties() {
        let mut rest = Rest::default();
        for why in [ProposeError::LeadershipLost, ProposeError::NoLeader, ProposeError::Stopping] {
            assert_eq!(rest.after(Err(why), time::now()), Err(why));
        }
    }
}
