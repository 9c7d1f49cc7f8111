//! Four rows of codes times up to a few rows of x, both in their natural order.
//!
//! `y = sum over groups of scale * sum(x_scale * codes * x) + bias * sum_x`: the inner sums stay spread over four lanes, each of
//! which sees four neighbouring columns and their scale of x; lanes are added up once at the end.

use std::arch::aarch64::*;
use std::marker::PhantomData;

use crate::input::{ExactInput, Int8Input};

use super::dot::Dot;
use super::floats::sums_of;
use super::scales::Scales;
use super::unpack::{Codes, ROWS};

/// Values of x that share a scale: those that a lane sees.
pub(super) const X_BLOCK: usize = 4;

/// Four rows of weights.
pub(super) struct Block<'a, C> {
    pub codes: C,
    /// From the first of the four rows on.
    pub scales: Scales<'a>,
    /// Columns of a group.
    pub group: usize,
    /// First group, as x counts them.
    pub first: usize,
    /// Groups of the block.
    pub groups: usize,
}

/// The rows of x, in the type that the kernel multiplies.
///
/// # Safety
/// Of all methods: x must have the row, the column with 15 more, and the group.
pub(super) trait Input: Copy {
    /// x of 16 columns, and what they are multiplied with.
    type Values: Copy;
    /// Sums of products of a group.
    type Sums: Copy;

    unsafe fn load(self, input_row: usize, col: usize) -> Self::Values;
    unsafe fn zero() -> Self::Sums;
    unsafe fn add(sums: Self::Sums, codes: uint8x16_t, x: Self::Values) -> Self::Sums;
    unsafe fn finish(sums: Self::Sums) -> float32x4_t;
    /// Sum of x in a group.
    unsafe fn sum(self, input_row: usize, group: usize) -> f32;
}

/// x rounded to 8 bits; codes are signed bytes.
pub(super) struct Rounded<'a, D> {
    input: Int8Input<'a>,
    stride: usize,
    block_stride: usize,
    group_stride: usize,
    dot: PhantomData<D>,
}

impl<D> Clone for Rounded<'_, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<D> Copy for Rounded<'_, D> {}

impl<'a, D> Rounded<'a, D> {
    pub fn new(input: Int8Input<'a>) -> Self {
        Rounded {
            input,
            stride: input.shape.stride(),
            block_stride: input.shape.block_stride(),
            group_stride: input.shape.group_stride(),
            dot: PhantomData,
        }
    }
}

impl<D: Dot> Input for Rounded<'_, D> {
    /// Codes and the scales of each four.
    type Values = (int8x16_t, float32x4_t);
    type Sums = float32x4_t;

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(self, input_row: usize, col: usize) -> (int8x16_t, float32x4_t) {
        // SAFETY: the caller's promise; scales are padded like the codes.
        unsafe {
            let scales = self
                .input
                .scales
                .as_ptr()
                .add(input_row * self.block_stride + col / X_BLOCK);
            let codes = self.input.codes.as_ptr().add(input_row * self.stride + col);
            (vld1q_s8(codes), vld1q_f32(scales))
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn zero() -> float32x4_t {
        vdupq_n_f32(0.0)
    }

    #[inline(always)]
    unsafe fn add(sums: float32x4_t, codes: uint8x16_t, (x, scales): (int8x16_t, float32x4_t)) -> float32x4_t {
        // SAFETY: the row of the table that chose D is offered only where its instructions are; x is within 127.
        unsafe {
            let products = D::dot(vdupq_n_s32(0), vreinterpretq_s8_u8(codes), x);
            vfmaq_f32(sums, vcvtq_f32_s32(products), scales)
        }
    }

    #[inline(always)]
    unsafe fn finish(sums: float32x4_t) -> float32x4_t {
        sums
    }

    #[inline(always)]
    unsafe fn sum(self, input_row: usize, group: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *self.input.sums.get_unchecked(input_row * self.group_stride + group) }
    }
}

/// x as floats; codes are unsigned bytes.
#[derive(Clone, Copy)]
pub(super) struct Floats<'a> {
    input: ExactInput<'a>,
    stride: usize,
    group_stride: usize,
}

impl<'a> Floats<'a> {
    pub fn new(input: ExactInput<'a>) -> Self {
        Floats {
            input,
            stride: input.shape.stride(),
            group_stride: input.shape.group_stride(),
        }
    }
}

impl Input for Floats<'_> {
    type Values = [float32x4_t; 4];
    /// Two chains: one would be slower than the unpacking.
    type Sums = [float32x4_t; 2];

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn load(self, input_row: usize, col: usize) -> [float32x4_t; 4] {
        // SAFETY: the caller's promise.
        unsafe {
            let x = self.input.values.as_ptr().add(input_row * self.stride + col);
            [
                vld1q_f32(x),
                vld1q_f32(x.add(4)),
                vld1q_f32(x.add(8)),
                vld1q_f32(x.add(12)),
            ]
        }
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn zero() -> [float32x4_t; 2] {
        [vdupq_n_f32(0.0); 2]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn add(sums: [float32x4_t; 2], codes: uint8x16_t, x: [float32x4_t; 4]) -> [float32x4_t; 2] {
        let codes = to_floats(codes);
        [
            vfmaq_f32(vfmaq_f32(sums[0], codes[0], x[0]), codes[2], x[2]),
            vfmaq_f32(vfmaq_f32(sums[1], codes[1], x[1]), codes[3], x[3]),
        ]
    }

    #[inline]
    #[target_feature(enable = "neon")]
    unsafe fn finish(sums: [float32x4_t; 2]) -> float32x4_t {
        vaddq_f32(sums[0], sums[1])
    }

    #[inline(always)]
    unsafe fn sum(self, input_row: usize, group: usize) -> f32 {
        // SAFETY: the caller's promise.
        unsafe { *self.input.sums.get_unchecked(input_row * self.group_stride + group) }
    }
}

/// 16 unsigned bytes as floats.
#[inline]
#[target_feature(enable = "neon")]
pub(super) fn to_floats(codes: uint8x16_t) -> [float32x4_t; 4] {
    let (low, high) = (vmovl_u8(vget_low_u8(codes)), vmovl_high_u8(codes));
    [
        vcvtq_f32_u32(vmovl_u16(vget_low_u16(low))),
        vcvtq_f32_u32(vmovl_high_u16(low)),
        vcvtq_f32_u32(vmovl_u16(vget_low_u16(high))),
        vcvtq_f32_u32(vmovl_high_u16(high)),
    ]
}

/// Products of the block with M rows of x from `input_row` on. // (M, 4 rows)
///
/// # Safety
/// Codes and scales must have the block's groups, and x the rows and the columns, padded to 16.
#[inline(always)]
pub(super) unsafe fn multiply<C: Codes, I: Input, const M: usize>(
    block: &Block<'_, C>,
    x: I,
    input_row: usize,
) -> [float32x4_t; M] {
    let Scales { scales, biases, stride } = block.scales;
    // SAFETY: passed on from the caller; scales are (groups, stride) with four rows at least; every AArch64 processor has
    // NEON.
    unsafe {
        let mut totals = [[vdupq_n_f32(0.0); ROWS]; M];
        let mut products = [vdupq_n_f32(0.0); M];
        for group in 0..block.groups {
            let sums = group_sums::<C, I, M>(block, x, input_row, group);
            let scales = vld1q_f32(scales.as_ptr().add(group * stride));
            let biases = vld1q_f32(biases.as_ptr().add(group * stride));
            for m in 0..M {
                let at = block.first + group;
                products[m] = vfmaq_n_f32(products[m], biases, x.sum(input_row + m, at));
                totals[m] = [
                    vfmaq_laneq_f32::<0>(totals[m][0], I::finish(sums[m][0]), scales),
                    vfmaq_laneq_f32::<1>(totals[m][1], I::finish(sums[m][1]), scales),
                    vfmaq_laneq_f32::<2>(totals[m][2], I::finish(sums[m][2]), scales),
                    vfmaq_laneq_f32::<3>(totals[m][3], I::finish(sums[m][3]), scales),
                ];
            }
        }
        for (products, totals) in products.iter_mut().zip(totals) {
            *products = vaddq_f32(*products, sums_of(totals));
        }
        products
    }
}

/// Sums of codes times x over a group of the block.
#[inline(always)]
unsafe fn group_sums<C: Codes, I: Input, const M: usize>(
    block: &Block<'_, C>,
    x: I,
    input_row: usize,
    group: usize,
) -> [[I::Sums; ROWS]; M] {
    let (start, x_start) = (group * block.group, (block.first + group) * block.group);
    let whole = block.group / 16 * 16;
    // SAFETY: passed on from the caller.
    unsafe {
        let mut sums = [[I::zero(); ROWS]; M];
        for col in (0..whole).step_by(16) {
            let mut codes = [vdupq_n_u8(0); ROWS];
            for (row, codes) in codes.iter_mut().enumerate() {
                *codes = block.codes.sixteen(row, start + col);
            }
            add::<I, M>(&mut sums, codes, x, (input_row, x_start + col));
        }
        if whole < block.group {
            let mut codes = [vdupq_n_u8(0); ROWS];
            for (row, codes) in codes.iter_mut().enumerate() {
                *codes = block.codes.eight(row, start + whole);
            }
            add::<I, M>(&mut sums, codes, x, (input_row, x_start + whole));
        }
        sums
    }
}

/// Adds the products of 16 codes with x at a row and column.
#[inline(always)]
unsafe fn add<I: Input, const M: usize>(
    sums: &mut [[I::Sums; ROWS]; M],
    codes: [uint8x16_t; ROWS],
    x: I,
    (input_row, col): (usize, usize),
) {
    for (m, sums) in sums.iter_mut().enumerate() {
        // SAFETY: passed on from the caller.
        unsafe {
            let x = x.load(input_row + m, col);
            for (sum, codes) in sums.iter_mut().zip(codes) {
                *sum = I::add(*sum, codes, x);
            }
        }
    }
}
