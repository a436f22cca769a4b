//! Draws of the deterministic cores.

use std::time::Duration;

/// Seeded draws (SplitMix64): the same seed gives the same draws everywhere. Not fit for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Begins with a seed, which its driver takes from the system or from a simulation.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A draw of all 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A draw below a bound; 0 when the bound is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        // The upper half of a wide product: as even as a draw of 64 bits allows, without a division.
        ((u128::from(self.draw()) * bound as u128) >> 64) as usize
    }

    /// A draw from nothing up to a span, in microseconds.
    pub fn span(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as usize + 1) as u64)
    }

    /// A draw from once to one and a half times a span.
    pub fn timeout(&mut self, shortest: Duration) -> Duration {
        let spread = (shortest.as_micros() as u64 / 2).max(1);
        shortest + Duration::from_micros(self.draw() % spread)
    }

    /// Puts items into a random order (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_repeat_with_their_seed_and_stay_below_their_bound() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        assert!((0..100).all(|_| one.draw() == other.draw()));
        assert!((0..1000).all(|bound| one.below(bound) < bound.max(1)));
        let mut seen = [0; 8];
        (0..8000).for_each(|_| seen[one.below(8)] += 1);
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }

    #[test]
    fn a_shuffle_keeps_all_items() {
        let mut items: Vec<u32> = (0..100).collect();
        Random::new(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
