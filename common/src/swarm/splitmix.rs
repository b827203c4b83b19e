//! Core: random numbers for the swarm's cores, from a seed: the same seed gives the same decisions, so that a run can
//! be repeated. For spreading load only; never for secrets. Owns the generator; touches nothing.

/// A seed made of `bytes`, such as those of a key; every byte changes it.
#[must_use]
pub fn seed(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum, byte| sum.rotate_left(8) ^ u64::from(*byte))
}

/// A pseudo-random number generator (splitmix64).
#[derive(Debug, Clone)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The generator that starts with `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, of all 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0. The bias of the remainder does not matter at these sizes.
    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next_u64() >> 32).unwrap_or(0) % end.max(1)
    }

    /// Puts `list` in random order (Fisher-Yates).
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for at in (1..list.len()).rev() {
            list.swap(at, self.below(at + 1));
        }
    }
}
