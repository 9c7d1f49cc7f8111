//! Loads of stored floats, sums of registers, and stores of products.

use std::arch::aarch64::*;

use planish_format::FloatType;

use crate::table::Output;

/// A type of stored floats.
pub(super) trait Stored: Copy {
    /// Size of a value.
    const BYTES: usize;
    /// Four values.
    ///
    /// # Safety
    /// There must be four values at `at`, at any alignment.
    unsafe fn load(at: *const u8) -> float32x4_t;
}

#[derive(Clone, Copy)]
pub(super) struct F32;

#[derive(Clone, Copy)]
pub(super) struct F16;

#[derive(Clone, Copy)]
pub(super) struct BF16;

impl Stored for F32 {
    const BYTES: usize = 4;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(at: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        unsafe { vreinterpretq_f32_u8(vld1q_u8(at)) }
    }
}

impl Stored for F16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(at: *const u8) -> float32x4_t {
        let floats: float32x4_t;
        // Every AArch64 processor converts 16-bit floats; the intrinsic wants a type that is newer than this compiler.
        // SAFETY: the load is the caller's promise; the instruction touches the named registers only.
        unsafe {
            let halves = vld1_u8(at);
            std::arch::asm!(
                "fcvtl {floats:v}.4s, {halves:v}.4h",
                floats = lateout(vreg) floats,
                halves = in(vreg) halves,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        floats
    }
}

impl Stored for BF16 {
    const BYTES: usize = 2;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(at: *const u8) -> float32x4_t {
        // SAFETY: the caller's promise.
        let halves = unsafe { vreinterpret_u16_u8(vld1_u8(at)) };
        vreinterpretq_f32_u32(vshll_n_u16::<16>(halves))
    }
}

/// Four floats from value `index` on.
///
/// # Safety
/// `data` must have them.
#[inline]
#[target_feature(enable = "neon")]
pub(super) unsafe fn load_four(data: &[u8], float_type: FloatType, index: usize) -> float32x4_t {
    // SAFETY: the caller's promise.
    unsafe {
        let at = data.as_ptr().add(index * float_type.size_bytes());
        match float_type {
            FloatType::F32 => F32::load(at),
            FloatType::F16 => F16::load(at),
            FloatType::BF16 => BF16::load(at),
        }
    }
}

/// Rows become lanes.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn transpose(rows: [float32x4_t; 4]) -> [float32x4_t; 4] {
    let [a, b, c, d] = rows;
    let halves = |even: float32x4_t, odd: float32x4_t| (vreinterpretq_f64_f32(even), vreinterpretq_f64_f32(odd));
    let (upper, lower) = halves(vtrn1q_f32(a, b), vtrn1q_f32(c, d));
    let (upper_odd, lower_odd) = halves(vtrn2q_f32(a, b), vtrn2q_f32(c, d));
    [
        vreinterpretq_f32_f64(vtrn1q_f64(upper, lower)),
        vreinterpretq_f32_f64(vtrn1q_f64(upper_odd, lower_odd)),
        vreinterpretq_f32_f64(vtrn2q_f64(upper, lower)),
        vreinterpretq_f32_f64(vtrn2q_f64(upper_odd, lower_odd)),
    ]
}

/// The sum of each register in a lane of its own.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn sums_of([a, b, c, d]: [float32x4_t; 4]) -> float32x4_t {
    vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d))
}

/// Where the products of up to four rows of weights with one row of x go.
pub(super) struct Place<'a> {
    pub output: &'a Output,
    pub input_row: usize,
    /// First row of weights.
    pub row: usize,
    /// Rows of weights that there are from `row` on; those after the fourth do not matter.
    pub rows: usize,
    /// Whether products of earlier columns are there already.
    pub add: bool,
}

impl Place<'_> {
    /// Stores the products. // (4 rows)
    ///
    /// # Safety
    /// The rows must be among those given to the caller.
    #[inline]
    #[target_feature(enable = "neon")]
    pub unsafe fn store(&self, products: float32x4_t) {
        // SAFETY: no more than the rows that the caller vouches for are read and written.
        unsafe {
            let at = self.output.at(self.input_row, self.row);
            if self.rows >= 4 {
                let before = if self.add { vld1q_f32(at) } else { vdupq_n_f32(0.0) };
                return vst1q_f32(at, vaddq_f32(before, products));
            }
            let mut values = [0.0; 4];
            vst1q_f32(values.as_mut_ptr(), products);
            for (row, value) in values.into_iter().enumerate().take(self.rows) {
                let before = if self.add { *at.add(row) } else { 0.0 };
                *at.add(row) = before + value;
            }
        }
    }
}
