//! The random numbers of sampling: xoshiro256++ seeded by splitmix64, so that a seed means the same on every platform.
//!
//! Source: Blackman and Vigna, <https://prng.di.unimi.it/>. The stream is part of the contract: a change of it changes the
//! text that users get for their seeds.

/// A stream of 64-bit random numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Random {
        let mut mixer = seed;
        let state = std::array::from_fn(|_| split_mix(&mut mixer));
        Random { state }
    }

    /// The next 64 random bits.
    pub fn next_bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let bits = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (mixed_c, mixed_d) = (c ^ a, d ^ b);
        self.state = [a ^ mixed_d, b ^ mixed_c, mixed_c ^ (b << 17), mixed_d.rotate_left(45)];
        bits
    }

    /// The next number in [0, 1): the upper 53 bits over 2^53.
    pub fn next_unit(&mut self) -> f64 {
        (self.next_bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A seed that differs from run to run.
pub fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The standard library draws the keys of its hash maps from the system's random source.
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First outputs of the reference C programs splitmix64.c (seed 1234567) and xoshiro256plusplus.c (state 1, 2, 3, 4).
    #[test]
    fn matches_the_reference_programs() {
        let mut state = 1_234_567;
        let mixed: Vec<u64> = (0..3).map(|_| split_mix(&mut state)).collect();
        assert_eq!(
            mixed,
            [
                6_457_827_717_110_365_317,
                3_203_168_211_198_807_973,
                9_817_491_932_198_370_423
            ]
        );
        let mut random = Random { state: [1, 2, 3, 4] };
        let bits: Vec<u64> = (0..5).map(|_| random.next_bits()).collect();
        assert_eq!(
            bits,
            [
                41_943_041,
                58_720_359,
                3_588_806_011_781_223,
                3_591_011_842_654_386,
                9_228_616_714_210_784_205
            ]
        );
    }

    #[test]
    fn unit_numbers_are_evenly_spread() {
        let mut random = Random::new(7);
        let mut counts = [0usize; 10];
        for _ in 0..100_000 {
            let unit = random.next_unit();
            assert!((0.0..1.0).contains(&unit));
            counts[(unit * 10.0) as usize] += 1;
        }
        assert!(
            counts.iter().all(|&count| (9_600..10_400).contains(&count)),
            "{counts:?}"
        );
    }
}
