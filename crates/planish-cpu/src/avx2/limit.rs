//! The limit of a core: 8-bit dot products on registers (`vpdpbusd`, or `vpmaddubsw` with `vpmaddwd` to widen its sums).

use std::arch::x86_64::*;
use std::hint::black_box;

/// Sums that do not wait for one another.
const CHAINS: usize = 6;

/// As `dot_limit` of the table, without AVX-VNNI.
pub(super) fn pairs(rounds: usize) -> u64 {
    #[target_feature(enable = "avx2")]
    fn enabled(rounds: usize) -> __m256i {
        let weights = black_box(_mm256_set1_epi8(5));
        let ones = black_box(_mm256_set1_epi16(1));
        let mut sums = [_mm256_set1_epi8(3); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // The last sum is the next x: nothing can be left out.
                *sum = _mm256_madd_epi16(_mm256_maddubs_epi16(*sum, weights), ones);
            }
        }
        sums.into_iter()
            .fold(_mm256_setzero_si256(), |left, right| _mm256_add_epi32(left, right))
    }
    // SAFETY: the table offers this function only where the feature is there.
    black_box(unsafe { enabled(rounds) });
    (rounds * CHAINS * 32 * 2) as u64
}

/// As `dot_limit` of the table, with AVX-VNNI.
pub(super) fn vnni(rounds: usize) -> u64 {
    #[target_feature(enable = "avx2,avxvnni")]
    fn enabled(rounds: usize) -> __m256i {
        let (codes, x) = (black_box(_mm256_set1_epi8(5)), black_box(_mm256_set1_epi8(3)));
        let mut sums = [_mm256_setzero_si256(); 2 * CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_dpbusd_avx_epi32(*sum, codes, x);
            }
        }
        sums.into_iter()
            .fold(_mm256_setzero_si256(), |left, right| _mm256_add_epi32(left, right))
    }
    // SAFETY: the table offers this function only where the feature is there.
    black_box(unsafe { enabled(rounds) });
    (rounds * 2 * CHAINS * 32 * 2) as u64
}
