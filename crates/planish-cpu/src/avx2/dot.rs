//! Sums of products of bytes: what processors with AVX2 differ in.

use std::arch::asm;
use std::arch::x86_64::*;

use super::unpack::vectors;

/// A way to multiply unsigned codes with signed x, 32 bytes at a time.
pub(super) trait Dot: Copy {
    /// Whether 8-bit codes are multiplied as `code - 128`.
    const CENTRED: bool;

    /// Sums over the vectors of `codes * x`, for each lane of 32 bits. `x` is (vectors, 32).
    ///
    /// # Safety
    /// The machine must have the instructions, and x the vectors.
    unsafe fn sums<const BITS: u32>(codes: [__m256i; 4], x: *const i8) -> __m256i;
}

/// `vpmaddubsw`: every processor with AVX2.
#[derive(Clone, Copy)]
pub(super) struct Pairs;

impl Dot for Pairs {
    const CENTRED: bool = true;

    /// Pairs of products are added in 16 bits: 4 vectors of 2-bit codes reach 4 * 2 * 3 * 127, one of 6-bit codes
    /// 2 * 63 * 127. 8-bit codes would overflow, so they are centred and their sign moved to x: 2 * 128 * 127 fits.
    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const BITS: u32>(codes: [__m256i; 4], x: *const i8) -> __m256i {
        let mut pairs = _mm256_setzero_si256();
        for (vector, codes) in codes.into_iter().enumerate().take(vectors(BITS)) {
            // SAFETY: by the contract.
            let x = unsafe { _mm256_loadu_si256(x.add(32 * vector).cast()) };
            let products = if BITS == 8 {
                let centred = _mm256_xor_si256(codes, _mm256_set1_epi8(i8::MIN));
                _mm256_maddubs_epi16(_mm256_abs_epi8(centred), _mm256_sign_epi8(x, centred))
            } else {
                _mm256_maddubs_epi16(codes, x)
            };
            pairs = _mm256_add_epi16(pairs, products);
        }
        _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
    }
}

/// `vpdpbusd` in AVX's encoding: sums of four products in 32 bits, at once.
#[derive(Clone, Copy)]
pub(super) struct Vnni;

impl Dot for Vnni {
    const CENTRED: bool = false;

    #[inline]
    #[target_feature(enable = "avx2")]
    unsafe fn sums<const BITS: u32>(codes: [__m256i; 4], x: *const i8) -> __m256i {
        let mut sums = _mm256_setzero_si256();
        for (vector, codes) in codes.into_iter().enumerate().take(vectors(BITS)) {
            // The intrinsic would not be inlined into kernels that are compiled for AVX2.
            // SAFETY: x has the vector and the machine the instruction by the contract; only named registers change.
            unsafe {
                asm!(
                    "{{vex}} vpdpbusd {sums}, {codes}, {x}",
                    sums = inout(ymm_reg) sums,
                    codes = in(ymm_reg) codes,
                    x = in(ymm_reg) _mm256_loadu_si256(x.add(32 * vector).cast()),
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
        }
        sums
    }
}
