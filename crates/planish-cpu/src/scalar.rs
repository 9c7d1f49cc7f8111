//! The reference: every product in plain Rust, x in its natural order. Also what the SIMD kernels fall back to for groups
//! that their registers cannot hold.

use std::hint::black_box;
use std::ops::Range;

use half::{bf16, f16};
use planish_format::{FloatType, Isa, PackedMatrix};

use crate::input::{ExactRow, Int8Row, Shape, largest_magnitude, step_of};
use crate::scratch::WorkerScratch;
use crate::table::{ExactProduct, InstructionSet, Int8Product, PlainProduct};
use crate::vector;

/// The row of the table.
pub(crate) const SCALAR: InstructionSet = InstructionSet {
    isa: Isa::Scalar,
    rows_alike: true,
    block: |_, _| 8,
    arrange_int8,
    int8,
    arrange_exact,
    exact,
    plain,
    dot_limit,
    interleaved: None,
    bf16: None,
    attention: || None,
    vector: &vector::PORTABLE,
};

/// As `dot_limit` of the table: products of floats on registers.
fn dot_limit(rounds: usize) -> u64 {
    const CHAINS: usize = 32;
    let (factor, mut sums) = (black_box(0.5f32), [1.0f32; CHAINS]);
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = *sum * factor + factor;
        }
    }
    black_box(sums);
    (rounds * CHAINS * 2) as u64
}

/// Value `index` of little-endian `data`. f16 is converted without the instructions that the `half` crate looks for.
pub(crate) fn float_at(data: &[u8], float_type: FloatType, index: usize) -> f32 {
    let at = index * float_type.size_bytes();
    match float_type {
        FloatType::F32 => f32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]),
        FloatType::F16 => f16::from_le_bytes([data[at], data[at + 1]]).to_f32_const(),
        FloatType::BF16 => bf16::from_le_bytes([data[at], data[at + 1]]).to_f32(),
    }
}

/// The 8 codes in `bits` bytes.
fn eight_codes(bytes: &[u8]) -> [u8; 8] {
    let bits = bytes.len();
    let mut word = [0; 8];
    word[..bits].copy_from_slice(bytes);
    let word = u64::from_le_bytes(word);
    let mask = (1u64 << bits) - 1;
    std::array::from_fn(|code| (word >> (code * bits) & mask) as u8)
}

/// The codes of `group` of `row`, 8 at a time.
fn group_codes(matrix: &PackedMatrix, row: usize, group: usize) -> impl Iterator<Item = [u8; 8]> {
    let bits = matrix.packing.bits() as usize;
    let bytes = matrix.packing.group() / 8 * bits;
    let start = (row * (matrix.cols / matrix.packing.group()) + group) * bytes;
    matrix.codes[start..start + bytes].chunks_exact(bits).map(eight_codes)
}

/// Scale and bias of `group` of `row`.
fn scale_and_bias(matrix: &PackedMatrix, row: usize, group: usize) -> (f32, f32) {
    let index = row * (matrix.cols / matrix.packing.group()) + group;
    (
        float_at(&matrix.scales, matrix.scale_type, index),
        float_at(&matrix.biases, matrix.scale_type, index),
    )
}

/// Rounds one row of x, in its natural order.
pub(crate) fn arrange_int8(x: &[f32], shape: &Shape, mut row: Int8Row<'_>) {
    round_row(x, shape, &mut row);
}

/// The same, to be compiled with the instructions of its caller.
#[inline(always)]
pub(crate) fn round_row(x: &[f32], shape: &Shape, row: &mut Int8Row<'_>) {
    row.codes[x.len()..].fill(0);
    row.scales[shape.blocks()..].fill(0.0);
    row.sums.fill(0.0);
    let blocks_of_group = shape.packing.group() / shape.block;
    for (block, values) in x.chunks_exact(shape.block).enumerate() {
        let (scale, inverse) = step_of(largest_magnitude(values));
        let mut sum = 0;
        for (code, value) in row.codes[block * shape.block..].iter_mut().zip(values) {
            let rounded = (value * inverse).round_ties_even() as i32;
            *code = rounded as i8;
            sum += rounded;
        }
        row.scales[block] = scale;
        row.sums[block / blocks_of_group] += scale * sum as f32;
    }
}

/// Copies one row of x.
pub(crate) fn arrange_exact(x: &[f32], shape: &Shape, row: ExactRow<'_>) {
    row.values[..x.len()].copy_from_slice(x);
    row.values[x.len()..].fill(0.0);
    row.sums[shape.groups()..].fill(0.0);
    for (sum, values) in row.sums.iter_mut().zip(x.chunks_exact(shape.packing.group())) {
        *sum = values.iter().sum();
    }
}

/// Packed weights times rounded x.
pub(crate) fn int8(product: &Int8Product<'_>, rows: Range<usize>, _: &mut WorkerScratch) {
    let Int8Product { matrix, input, output } = product;
    let Shape { m, packing, .. } = input.shape;
    for row in rows {
        for input_row in 0..m {
            let x = &input.codes[input_row * input.shape.stride()..];
            let x_scales = &input.scales[input_row * input.shape.block_stride()..];
            let x_sums = &input.sums[input_row * input.shape.group_stride()..];
            let mut total = 0.0;
            for (group, x_sum) in x_sums.iter().enumerate().take(input.shape.groups()) {
                let blocks = packing.group() / input.shape.block;
                let mut codes = group_codes(matrix, row, group).flatten();
                let mut products = 0.0;
                for block in group * blocks..(group + 1) * blocks {
                    let x = &x[block * input.shape.block..][..input.shape.block];
                    let terms = x
                        .iter()
                        .zip(&mut codes)
                        .map(|(&x, code)| i32::from(code) * i32::from(x));
                    products += x_scales[block] * terms.sum::<i32>() as f32;
                }
                let (scale, bias) = scale_and_bias(matrix, row, group);
                total += scale * products + bias * x_sum;
            }
            // SAFETY: the row is one of those given to this call.
            unsafe { *output.at(input_row, row) = total };
        }
    }
}

/// Packed weights times x in f32.
pub(crate) fn exact(product: &ExactProduct<'_>, rows: Range<usize>, _: &mut WorkerScratch) {
    let ExactProduct { matrix, input, output } = product;
    let Shape { m, packing, .. } = input.shape;
    for row in rows {
        for input_row in 0..m {
            let x = &input.values[input_row * input.shape.stride()..];
            let mut total = 0.0;
            for group in 0..input.shape.groups() {
                let codes = group_codes(matrix, row, group).flatten();
                let x = &x[group * packing.group()..];
                let sum: f32 = codes.zip(x).map(|(code, &x)| f32::from(code) * x).sum();
                let (scale, bias) = scale_and_bias(matrix, row, group);
                total += scale * sum + bias * input.sums[input_row * input.shape.group_stride() + group];
            }
            // SAFETY: the row is one of those given to this call.
            unsafe { *output.at(input_row, row) = total };
        }
    }
}

/// Plain weights times x in f32, in 16 partial sums.
pub(crate) fn plain(product: &PlainProduct<'_>, rows: Range<usize>, _: &mut WorkerScratch) {
    let PlainProduct {
        matrix,
        input,
        m,
        output,
    } = product;
    let cols = matrix.cols;
    for row in rows {
        for input_row in 0..*m {
            let mut sums = [0.0f32; 16];
            for (col, x) in input[input_row * cols..][..cols].iter().enumerate() {
                sums[col % 16] += float_at(&matrix.data, matrix.float_type, row * cols + col) * x;
            }
            // SAFETY: the row is one of those given to this call.
            unsafe { *output.at(input_row, row) = sums.iter().sum() };
        }
    }
}

/// Weights of one row as floats.
pub(crate) fn packed_row(matrix: &PackedMatrix, row: usize, into: &mut [f32]) {
    let size = matrix.packing.group();
    for (group, values) in into.chunks_exact_mut(size).enumerate() {
        let (scale, bias) = scale_and_bias(matrix, row, group);
        for (value, code) in values.iter_mut().zip(group_codes(matrix, row, group).flatten()) {
            *value = scale * f32::from(code) + bias;
        }
    }
}
