//! Turns results of runs into statuses: how many equal results in a row it takes.

use super::plan::Thresholds;
use crate::store::model::Status;

/// Counts results of one check.
#[derive(Clone, Debug, Default)]
pub struct Counter {
    rule: Thresholds,
    successes: u32,
    failures: u32,
}

impl Counter {
    /// A counter that has seen nothing.
    pub fn new(rule: Thresholds) -> Counter {
        Counter { rule, successes: 0, failures: 0 }
    }

    /// Takes one result. Returns the status to report, or `None` while the thresholds hold the old one.
    ///
    /// As in Consul, a run of failures first passes the warning threshold, then the critical one: with
    /// `failures_before_warning` below `failures_before_critical` the check warns in between.
    pub fn take(&mut self, found: Status) -> Option<Status> {
        if found == Status::Passing {
            self.successes = self.successes.saturating_add(1);
            self.failures = 0;
            return (self.successes >= self.rule.success_before_passing).then_some(Status::Passing);
        }
        self.failures = self.failures.saturating_add(1);
        self.successes = 0;
        // Without a threshold of its own, warning shares the critical one.
        let warning = match self.rule.failures_before_warning {
            0 => self.rule.failures_before_critical,
            n => n,
        };
        if self.failures >= self.rule.failures_before_critical {
            return Some(found);
        }
        (self.failures >= warning).then_some(Status::Warning)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Status::*;

    fn run(rule: Thresholds, results: &[Status]) -> Vec<Option<Status>> {
        let mut counter = Counter::new(rule);
        results.iter().map(|s| counter.take(*s)).collect()
    }

    #[test]
    fn without_thresholds_each_result_counts() {
        assert_eq!(
            run(Thresholds::default(), &[Critical, Warning, Passing]),
            [Some(Critical), Some(Warning), Some(Passing)]
        );
    }

    #[test]
    fn three_successes_make_it_pass() {
        let rule = Thresholds { success_before_passing: 3, ..Default::default() };
        assert_eq!(
            run(rule, &[Passing, Passing, Critical, Passing, Passing, Passing]),
            [None, None, Some(Critical), None, None, Some(Passing)]
        );
    }

    #[test]
    fn failures_are_held_back_and_mixed_failures_count_together() {
        let rule = Thresholds { failures_before_critical: 3, ..Default::default() };
        assert_eq!(
            run(rule, &[Critical, Warning, Passing, Critical, Warning, Critical]),
            [None, None, Some(Passing), None, None, Some(Critical)]
        );
    }

    #[test]
    fn it_warns_between_the_two_failure_thresholds() {
        let rule =
            Thresholds { failures_before_warning: 2, failures_before_critical: 4, ..Default::default() };
        assert_eq!(
            run(rule, &[Critical, Critical, Critical, Critical]),
            [None, Some(Warning), Some(Warning), Some(Critical)]
        );
    }
}
