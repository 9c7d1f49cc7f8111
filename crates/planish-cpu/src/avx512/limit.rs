//! The limit of a core: 8-bit dot products on registers (`vpdpbusd`).

use std::arch::x86_64::*;
use std::hint::black_box;

/// Sums that do not wait for one another.
const CHAINS: usize = 12;

/// As `dot_limit` of the table.
pub(super) fn dot_limit(rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn enabled(rounds: usize) -> i32 {
        let (x, weights) = black_box((_mm512_set1_epi8(3), _mm512_set1_epi8(5)));
        let mut sums = [_mm512_setzero_si512(); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, x, weights);
            }
        }
        let add = |left, right| _mm512_add_epi32(left, right);
        _mm512_reduce_add_epi32(sums.into_iter().fold(_mm512_setzero_si512(), add))
    }
    // SAFETY: the table offers this function only where the features are there.
    black_box(unsafe { enabled(rounds) });
    (rounds * CHAINS * 64 * 2) as u64
}
