//! Local health: how far this agent trusts itself (Lifeguard, IV-A). Who misses answers that it should have got, or is accused itself, is
//! probably slow, and gives others more time.

use std::time::Duration;

/// A score from 0, healthy, up to a limit.
#[derive(Debug)]
pub(super) struct Awareness {
    score: u32,
    /// The score stays below.
    limit: u32,
}

impl Awareness {
    pub fn new(limit: u32) -> Awareness {
        Awareness { score: 0, limit: limit.max(1) }
    }

    /// This agent has missed so many signs of life that it should have got.
    pub fn worsen(&mut self, by: u32) {
        self.score = self.score.saturating_add(by).min(self.limit - 1);
    }

    /// It has got one in time.
    pub fn improve(&mut self) {
        self.score = self.score.saturating_sub(1);
    }

    pub fn score(&self) -> u32 {
        self.score
    }

    /// A time span, longer the worse the health is.
    pub fn scale(&self, span: Duration) -> Duration {
        span * (self.score + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_stays_within_its_bounds_and_scales() {
        let mut health = Awareness::new(8);
        health.improve();
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(1));
        health.worsen(3);
        assert_eq!(health.scale(Duration::from_secs(1)), Duration::from_secs(4));
        health.worsen(100);
        assert_eq!(health.score(), 7);
        health.improve();
        assert_eq!(health.score(), 6);
    }
}
