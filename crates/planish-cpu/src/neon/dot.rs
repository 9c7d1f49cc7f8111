//! Sums of products of signed bytes: what AArch64 processors differ in.

use std::arch::aarch64::*;

/// A way to multiply 16 bytes with 16 bytes.
pub(super) trait Dot: Copy {
    /// Adds the products to four sums, those of four neighbouring bytes to one.
    ///
    /// # Safety
    /// The machine must have the instructions; x must be above -128.
    unsafe fn dot(sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t;
}

/// Without the dot-product instructions: Cortex-A53, A72 and others before Armv8.2.
#[derive(Clone, Copy)]
pub(super) struct Widening;

impl Dot for Widening {
    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn dot(sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
        let low = vpaddlq_s16(vmull_s8(vget_low_s8(codes), vget_low_s8(x)));
        let high = vpaddlq_s16(vmull_high_s8(codes, x));
        vaddq_s32(sums, vpaddq_s32(low, high))
    }
}

/// With the instruction `sdot`: Armv8.2 with dotprod, Armv8.4 and later.
#[derive(Clone, Copy)]
pub(super) struct Dotprod;

impl Dot for Dotprod {
    #[inline]
    #[target_feature(enable = "neon,dotprod")]
    unsafe fn dot(sums: int32x4_t, codes: int8x16_t, x: int8x16_t) -> int32x4_t {
        let mut result = sums;
        // The intrinsic is not stable.
        // SAFETY: reads and writes the named registers only; the caller vouches for the instruction.
        unsafe {
            std::arch::asm!(
                "sdot {sums:v}.4s, {codes:v}.16b, {x:v}.16b",
                sums = inout(vreg) result,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        result
    }
}
