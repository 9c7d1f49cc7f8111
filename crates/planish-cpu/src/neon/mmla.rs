//! Several rows of x by `smmla` (Armv8.6, "i8mm"): products of two rows of x with two rows of weights, 8 columns at a time.
//!
//! As in `tiles.rs` codes of 16 rows are unpacked once for all rows of x. Sums of a block of x are integers, scaled with its
//! scale; sums of a group are scaled with those of the weights: `y = sum of scale * sum(x_scale * codes * x) + bias * sum_x`.

use std::arch::aarch64::*;
use std::arch::asm;
use std::ops::Range;

use planish_format::Packing;

use crate::input::Int8Input;
use crate::scratch::WorkerScratch;
use crate::table::Int8Product;

use super::floats::Place;
use super::scales::Scales;
use super::tiles::{INT8_COLUMNS, TILE_ROWS, parts, unpack_tile};
use super::unpack::{ROWS, signed_offset};

/// Values of x that share a scale.
pub(super) const X_BLOCK: usize = 16;
/// Pairs of rows of x that share the loads of weights.
const PAIRS: usize = 2;

/// Whether a packing and so many rows of x are for these kernels.
pub(super) fn fits(packing: Packing, m: usize) -> bool {
    m > 1 && packing.group().is_multiple_of(X_BLOCK)
}

/// Four rows of unpacked codes and what belongs to them.
struct Rows<'a> {
    /// Signed bytes. // (4, stride)
    codes: *const i8,
    stride: usize,
    /// From the first of the four rows on. // (groups, stride)
    scales: Scales<'a>,
    group: usize,
    /// First group, as x counts them.
    first: usize,
    groups: usize,
}

/// Packed weights times x rounded to 8 bits, where that [`fits`].
///
/// # Safety
/// The machine must have the instructions.
#[inline(always)]
pub(super) unsafe fn int8(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    // SAFETY: passed on from the caller.
    unsafe {
        match product.matrix.packing.bits() {
            2 => by_bits::<2>(product, rows, scratch),
            3 => by_bits::<3>(product, rows, scratch),
            4 => by_bits::<4>(product, rows, scratch),
            5 => by_bits::<5>(product, rows, scratch),
            6 => by_bits::<6>(product, rows, scratch),
            _ => by_bits::<8>(product, rows, scratch),
        }
    }
}

/// # Safety
/// As for [`int8`].
#[inline(always)]
unsafe fn by_bits<const BITS: u32>(product: &Int8Product<'_>, rows: Range<usize>, scratch: &mut WorkerScratch) {
    let Int8Product { matrix, input, output } = product;
    let (shape, group) = (input.shape, input.shape.packing.group());
    for part in parts(&shape, INT8_COLUMNS, rows) {
        let stride = part.groups.len() * group;
        // SAFETY: the part is in the matrix, whose lengths were checked; groups are multiples of 16.
        let codes = unsafe { unpack_tile::<BITS>(matrix, &part, stride, &mut scratch.tile) };
        let scales = Scales::load::<TILE_ROWS>(matrix, &part, signed_offset(BITS), &mut scratch.scales);
        for input_row in (0..shape.m).step_by(2 * PAIRS) {
            for row in (0..part.rows.len()).step_by(ROWS) {
                let rows = Rows {
                    codes: codes[row * stride..].as_ptr().cast(),
                    stride,
                    scales: Scales {
                        scales: &scales.scales[row..],
                        biases: &scales.biases[row..],
                        ..scales
                    },
                    group,
                    first: part.groups.start,
                    groups: part.groups.len(),
                };
                let mut place = Place {
                    output,
                    input_row,
                    row: part.rows.start + row,
                    rows: part.rows.len() - row,
                    add: part.groups.start > 0,
                };
                // SAFETY: the tile has four rows from `row` on and their scales; the rows of the matrix are those given to
                // this call, and rows of x from `m` on are not stored.
                unsafe {
                    for products in multiply(&rows, input, input_row).into_iter().take(shape.m - input_row) {
                        place.store(products);
                        place.input_row += 1;
                    }
                }
            }
        }
    }
}

/// Products with the rows of x from `input_row` on; those after the last are copies of it. // (2 * PAIRS, 4 rows)
///
/// # Safety
/// The machine must have the instructions; codes, scales and x must have the groups.
#[inline]
#[target_feature(enable = "neon,i8mm")]
unsafe fn multiply(rows: &Rows<'_>, input: &Int8Input<'_>, input_row: usize) -> [float32x4_t; 2 * PAIRS] {
    let x_rows: [usize; 2 * PAIRS] = std::array::from_fn(|row| (input_row + row).min(input.shape.m - 1));
    let (stride, block_stride, group_stride) = (
        input.shape.stride(),
        input.shape.block_stride(),
        input.shape.group_stride(),
    );
    // Two rows of x times two rows of weights: x0 w0, x0 w1, x1 w0, x1 w1. // (pairs of x, pairs of weights)
    let mut totals = [[vdupq_n_f32(0.0); 2]; PAIRS];
    // SAFETY: passed on from the caller.
    unsafe {
        for group in 0..rows.groups {
            let mut sums = [[vdupq_n_f32(0.0); 2]; PAIRS];
            for col in (group * rows.group..(group + 1) * rows.group).step_by(X_BLOCK) {
                let x_col = rows.first * rows.group + col;
                let codes = [0, 1].map(|pair| {
                    let at = rows.codes.add(2 * pair * rows.stride + col);
                    two_rows(at, at.add(rows.stride))
                });
                for (pair, sums) in sums.iter_mut().enumerate() {
                    let of_x = [x_rows[2 * pair], x_rows[2 * pair + 1]];
                    let x = of_x.map(|row| input.codes.as_ptr().add(row * stride + x_col));
                    let x = two_rows(x[0], x[1]);
                    let scales =
                        of_x.map(|row| vdup_n_f32(*input.scales.as_ptr().add(row * block_stride + x_col / X_BLOCK)));
                    let scales = vcombine_f32(scales[0], scales[1]);
                    for (sums, codes) in sums.iter_mut().zip(codes) {
                        let products = matrix_product(matrix_product(vdupq_n_s32(0), x[0], codes[0]), x[1], codes[1]);
                        *sums = vfmaq_f32(*sums, vcvtq_f32_s32(products), scales);
                    }
                }
            }
            let Scales { scales, biases, stride } = rows.scales;
            let scales = vld1q_f32(scales.as_ptr().add(group * stride));
            let biases = vld1q_f32(biases.as_ptr().add(group * stride));
            let of_pairs = |four| {
                [
                    vcombine_f32(vget_low_f32(four), vget_low_f32(four)),
                    vcombine_f32(vget_high_f32(four), vget_high_f32(four)),
                ]
            };
            let (scales, biases) = (of_pairs(scales), of_pairs(biases));
            for (pair, (totals, sums)) in totals.iter_mut().zip(sums).enumerate() {
                let of_x = [x_rows[2 * pair], x_rows[2 * pair + 1]];
                let x_sums =
                    of_x.map(|row| vdup_n_f32(*input.sums.as_ptr().add(row * group_stride + rows.first + group)));
                let x_sums = vcombine_f32(x_sums[0], x_sums[1]);
                for (half, total) in totals.iter_mut().enumerate() {
                    *total = vfmaq_f32(vfmaq_f32(*total, sums[half], scales[half]), biases[half], x_sums);
                }
            }
        }
    }
    let mut products = [vdupq_n_f32(0.0); 2 * PAIRS];
    for (products, [left, right]) in products.as_chunks_mut::<2>().0.iter_mut().zip(totals) {
        *products = [
            vcombine_f32(vget_low_f32(left), vget_low_f32(right)),
            vcombine_f32(vget_high_f32(left), vget_high_f32(right)),
        ];
    }
    products
}

/// 16 columns of two rows as `smmla` takes them: the first 8 of both, the last 8 of both.
///
/// # Safety
/// There must be 16 bytes at both.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn two_rows(first: *const i8, second: *const i8) -> [int8x16_t; 2] {
    // SAFETY: the caller's promise.
    let (first, second) = unsafe { (vld1q_s8(first), vld1q_s8(second)) };
    let (first, second) = (vreinterpretq_s64_s8(first), vreinterpretq_s64_s8(second));
    [
        vreinterpretq_s8_s64(vzip1q_s64(first, second)),
        vreinterpretq_s8_s64(vzip2q_s64(first, second)),
    ]
}

/// Adds the products of two rows (of 8 bytes) with two rows. // (2, 2)
#[inline]
#[target_feature(enable = "neon,i8mm")]
fn matrix_product(sums: int32x4_t, left: int8x16_t, right: int8x16_t) -> int32x4_t {
    let mut result = sums;
    // The intrinsic is not stable.
    // SAFETY: reads and writes the named registers only.
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {left:v}.16b, {right:v}.16b",
            sums = inout(vreg) result,
            left = in(vreg) left,
            right = in(vreg) right,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    result
}
