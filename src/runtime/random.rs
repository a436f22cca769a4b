//! Randomness: from the kernel for what must not be guessed, from a small generator for jitter and shuffling.

/// Fills `bytes` from the kernel's generator.
///
/// # Panics
/// The kernel has none (older than 3.17 and no /dev/urandom): nothing safe can be done without.
pub fn fill(bytes: &mut [u8]) {
    getrandom::fill(bytes).expect("every supported kernel has a random generator");
}

/// 64 random bits from the kernel, to seed generators with.
pub fn seed() -> u64 {
    let mut bytes = [0; 8];
    fill(&mut bytes);
    u64::from_ne_bytes(bytes)
}

/// A random (version 4) UUID in text form.
pub fn uuid() -> String {
    let mut bytes = [0; 16];
    fill(&mut bytes);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// A fast generator (SplitMix64) that gives the same sequence for the same seed. Not for secrets.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator with a fixed start.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A generator with a start from the kernel.
    pub fn seeded() -> Rng {
        Rng(seed())
    }

    /// 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0. Its bias is below 2^-32 for bounds that fit 32 bits.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A fraction, at least 0 and below 1.
    pub fn fraction(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Puts `items` into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_in_bounds_and_repeat_by_seed() {
        let mut rng = Rng::new(7);
        let first: Vec<u64> = (0..100).map(|_| rng.below(10)).collect();
        assert!(first.iter().all(|n| *n < 10) && (0..10).all(|n| first.contains(&n)));
        let mut again = Rng::new(7);
        assert!(first.iter().all(|n| *n == again.below(10)));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.fraction())));
    }

    #[test]
    fn a_shuffle_keeps_all_items() {
        let mut items: Vec<u32> = (0..50).collect();
        Rng::new(1).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }

    #[test]
    fn uuids_have_their_version() {
        assert_eq!(uuid().as_bytes()[14], b'4');
        assert_ne!(uuid(), uuid());
    }
}
