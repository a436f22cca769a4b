//! What others do wrong is told in the log once in a while, whatever they send.

use std::collections::BTreeMap;

use super::settings::{COMPLAINT_INTERVAL, COMPLAINTS_MAX};
use crate::entry::Now;

/// What was complained of lately.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    /// For each reason: until when it is not told again, and how often that was so.
    told: BTreeMap<String, (Now, u64)>,
}

impl Complaints {
    /// Whether a reason is to be told now; if so, how often it was not.
    pub fn may(&mut self, reason: &str, now: Now) -> Option<u64> {
        if let Some((until, untold)) = self.told.get_mut(reason) {
            if now < *until {
                *untold += 1;
                return None;
            }
            *until = now + COMPLAINT_INTERVAL;
            return Some(std::mem::take(untold));
        }
        if self.told.len() >= COMPLAINTS_MAX {
            self.told.retain(|_, (until, _)| now < *until);
        }
        if self.told.len() >= COMPLAINTS_MAX {
            return None;
        }
        self.told.insert(reason.to_owned(), (now + COMPLAINT_INTERVAL, 0));
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_flood_is_told_once_in_a_while_with_its_number() {
        let mut complaints = Complaints::default();
        assert_eq!(complaints.may("damaged", Duration::from_secs(1)), Some(0));
        assert_eq!(complaints.may("damaged", Duration::from_secs(2)), None);
        assert_eq!(complaints.may("newer", Duration::from_secs(2)), Some(0));
        assert_eq!(complaints.may("damaged", Duration::from_secs(30)), Some(1));
    }

    #[test]
    fn reasons_without_number_are_not_remembered_without_bound() {
        let mut complaints = Complaints::default();
        for number in 0..10 * COMPLAINTS_MAX {
            complaints.may(&number.to_string(), Duration::from_secs(1));
        }
        assert_eq!(complaints.told.len(), COMPLAINTS_MAX);
        assert_eq!(complaints.may("x", Duration::from_secs(60)), Some(0));
    }
}
