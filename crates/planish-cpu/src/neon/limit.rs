//! The limit of a core: dot products on registers.

use std::arch::aarch64::*;
use std::arch::asm;
use std::hint::black_box;

/// Sums that do not wait for one another.
const CHAINS: usize = 8;

/// As `dot_limit` of the table, with `sdot` (no stable intrinsic). The machine must have the dot-product instructions.
pub(super) fn dotprod(rounds: usize) -> u64 {
    #[target_feature(enable = "neon,dotprod")]
    fn enabled(rounds: usize) {
        // SAFETY: this function has the feature; no memory is touched.
        unsafe {
            asm!(
                "2:",
                "sdot v0.4s, v16.16b, v17.16b",
                "sdot v1.4s, v16.16b, v17.16b",
                "sdot v2.4s, v16.16b, v17.16b",
                "sdot v3.4s, v16.16b, v17.16b",
                "sdot v4.4s, v16.16b, v17.16b",
                "sdot v5.4s, v16.16b, v17.16b",
                "sdot v6.4s, v16.16b, v17.16b",
                "sdot v7.4s, v16.16b, v17.16b",
                "subs {rounds}, {rounds}, #1",
                "b.ne 2b",
                rounds = inout(reg) rounds => _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                options(nomem, nostack),
            );
        }
    }
    let rounds = rounds.max(1);
    // SAFETY: the table offers this function only where the feature is there.
    unsafe { enabled(rounds) };
    (rounds * CHAINS * 16 * 2) as u64
}

/// As `dot_limit` of the table, with `smmla`. The machine must have the matrix instructions for bytes.
pub(super) fn i8mm(rounds: usize) -> u64 {
    #[target_feature(enable = "neon,i8mm")]
    fn enabled(rounds: usize) {
        // SAFETY: this function has the feature; no memory is touched.
        unsafe {
            asm!(
                "2:",
                "smmla v0.4s, v16.16b, v17.16b",
                "smmla v1.4s, v16.16b, v17.16b",
                "smmla v2.4s, v16.16b, v17.16b",
                "smmla v3.4s, v16.16b, v17.16b",
                "smmla v4.4s, v16.16b, v17.16b",
                "smmla v5.4s, v16.16b, v17.16b",
                "smmla v6.4s, v16.16b, v17.16b",
                "smmla v7.4s, v16.16b, v17.16b",
                "subs {rounds}, {rounds}, #1",
                "b.ne 2b",
                rounds = inout(reg) rounds => _,
                out("v0") _, out("v1") _, out("v2") _, out("v3") _, out("v4") _, out("v5") _, out("v6") _, out("v7") _,
                options(nomem, nostack),
            );
        }
    }
    let rounds = rounds.max(1);
    // SAFETY: the table offers this function only where the feature is there.
    unsafe { enabled(rounds) };
    (rounds * CHAINS * 32 * 2) as u64
}

/// As `dot_limit` of the table, with products of floats.
pub(super) fn floats(rounds: usize) -> u64 {
    // SAFETY: every AArch64 processor has NEON.
    unsafe {
        let (x, weights) = black_box((vdupq_n_f32(0.5), vdupq_n_f32(0.25)));
        let mut sums = [vdupq_n_f32(0.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = vfmaq_f32(*sum, x, weights);
            }
        }
        black_box(sums);
    }
    (rounds * CHAINS * 4 * 2) as u64
}
