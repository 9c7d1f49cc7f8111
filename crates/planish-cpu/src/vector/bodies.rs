//! The bodies of the vector kernels, generic over the register; inlined into the entry points of `table.rs`.

use half::f16;
use planish_ops::{Activation, AlibiRule, NormKind, RopePairs};

use super::exp::{exp, gelu, gelu_tanh, multiply_add, sigmoid, silu, tanh, xielu};
use super::lanes::{Element, Lanes};
use super::table::{NormRow, Product, SoftmaxBlock};

/// Rows of a tile whose sums stay in registers.
const TILE_ROWS: usize = 6;

/// `output (rows, cols) (+)= left (rows, depth) x right (depth, cols)`; cols is a multiple of 16.
///
/// # Safety
/// The instruction set of `L`; the slices are as long as the sizes say (checked by `Product::check`).
#[inline(always)]
pub(super) unsafe fn product<L: Lanes, T: Element>(product: &mut Product<'_, T>) {
    product.check();
    let wide = L::COUNT * L::TILE;
    let mut col = 0;
    while col + wide <= product.cols {
        // SAFETY: the caller's promise; columns up to `col + wide` exist.
        unsafe {
            match L::TILE {
                4 => strip::<L, T, 4>(product, col),
                _ => strip::<L, T, 2>(product, col),
            }
        }
        col += wide;
    }
    while col < product.cols {
        // SAFETY: as above; cols is a multiple of every register's length.
        unsafe { strip::<L, T, 1>(product, col) }
        col += L::COUNT;
    }
}

/// All rows of `W` registers of columns.
#[inline(always)]
unsafe fn strip<L: Lanes, T: Element, const W: usize>(product: &mut Product<'_, T>, col: usize) {
    let mut row = 0;
    while row < product.rows {
        // SAFETY: the caller's promise; the rows exist.
        unsafe {
            match product.rows - row {
                1 => tile::<L, T, 1, W>(product, row, col),
                2 => tile::<L, T, 2, W>(product, row, col),
                3 => tile::<L, T, 3, W>(product, row, col),
                4 => tile::<L, T, 4, W>(product, row, col),
                5 => tile::<L, T, 5, W>(product, row, col),
                _ => tile::<L, T, TILE_ROWS, W>(product, row, col),
            }
        }
        row += TILE_ROWS;
    }
}

/// `R` rows of `W` registers of columns: sums in registers, one pass over the depth.
#[inline(always)]
unsafe fn tile<L: Lanes, T: Element, const R: usize, const W: usize>(
    product: &mut Product<'_, T>,
    row: usize,
    col: usize,
) {
    // SAFETY: `Product::check` has compared the lengths with the sizes; row + R and col + W registers are within them.
    unsafe {
        let left = product.left.as_ptr().add(row * product.left_stride);
        let right = product.right.as_ptr().add(col);
        let output = product.output.as_mut_ptr().add(row * product.cols + col);
        let mut sums = [[L::splat(0.0); W]; R];
        if product.accumulate {
            for (r, sums) in sums.iter_mut().enumerate() {
                for (w, sum) in sums.iter_mut().enumerate() {
                    *sum = L::load(output.add(r * product.cols + w * L::COUNT));
                }
            }
        }
        // Blocks lie apart, where the machine's own prefetching does not follow.
        let ahead = if row == 0 && col == 0 { product.ahead } else { &[] };
        let line = 64 / size_of::<T>();
        let step = ahead.len().div_ceil(product.depth);
        for k in 0..product.depth {
            for offset in (k * step..((k + 1) * step).min(ahead.len())).step_by(line) {
                L::prefetch(ahead.as_ptr().wrapping_add(offset));
            }
            let mut values = [L::splat(0.0); W];
            for (w, value) in values.iter_mut().enumerate() {
                *value = T::load::<L>(right.add(k * product.cols + w * L::COUNT));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let factor = L::splat(*left.add(r * product.left_stride + k));
                for (sum, value) in sums.iter_mut().zip(values) {
                    *sum = L::multiply_add(factor, value, *sum);
                }
            }
        }
        for (r, sums) in sums.iter().enumerate() {
            for (w, sum) in sums.iter().enumerate() {
                L::store(output.add(r * product.cols + w * L::COUNT), *sum);
            }
        }
    }
}

/// Rounds values to the nearest f16. Both slices are of one length.
///
/// # Safety
/// The instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn to_f16<L: Lanes>(values: &[f32], into: &mut [f16]) {
    assert_eq!(values.len(), into.len());
    let whole = values.len() / L::COUNT * L::COUNT;
    for start in (0..whole).step_by(L::COUNT) {
        // SAFETY: a whole register is inside of both slices.
        unsafe { L::store_half(into.as_mut_ptr().add(start), L::load(values.as_ptr().add(start))) }
    }
    for (into, &value) in into[whole..].iter_mut().zip(&values[whole..]) {
        *into = f16::from_f32_const(value);
    }
}

/// Rounds `inverse * values` to the nearest integers, which must be within 127. Both slices are of one length.
#[inline(always)]
pub(super) fn to_i8(values: &[f32], inverse: f32, into: &mut [i8]) {
    assert_eq!(values.len(), into.len());
    for (into, value) in into.iter_mut().zip(values) {
        *into = (value * inverse).round_ties_even() as i32 as i8;
    }
}

/// One step of the online softmax (Milakov and Gimelshein, 2018) for one row: scores of a block become
/// `exp(score - maximum)`; returns the factor by which earlier sums shrink.
#[inline(always)]
pub(super) fn softmax_block<const FUSED: bool>(block: &mut SoftmaxBlock<'_>) -> f32 {
    if let Some(cap) = block.softcap {
        for score in block.scores.iter_mut() {
            *score = cap * tanh::<FUSED>(*score / cap);
        }
    }
    if let Some(bias) = block.bias {
        let (slope, AlibiRule { factor, rounded }) = (bias.slope, bias.rule);
        for (index, score) in block.scores.iter_mut().enumerate() {
            let position = (bias.first_position + index) as f32;
            *score += factor
                * match rounded {
                    true => round_to_bf16(slope * round_to_bf16(position)),
                    false => slope * position,
                };
        }
    }
    let (from, to) = (block.valid.start, block.valid.end);
    block.scores[..from].fill(f32::NEG_INFINITY);
    block.scores[to..].fill(f32::NEG_INFINITY);
    if from >= to {
        block.scores.fill(0.0);
        return 1.0;
    }
    let mut maxima = [f32::NEG_INFINITY; 16];
    for chunk in block.scores.chunks_exact(16) {
        for (maximum, &score) in maxima.iter_mut().zip(chunk) {
            *maximum = if score > *maximum { score } else { *maximum };
        }
    }
    let maximum = maxima.iter().fold(*block.maximum, |a, &b| a.max(b));
    let shrink = if *block.sum > 0.0 {
        exp::<FUSED>(*block.maximum - maximum)
    } else {
        0.0
    };
    let mut sums = [0.0f32; 16];
    for chunk in block.scores.chunks_exact_mut(16) {
        for (sum, score) in sums.iter_mut().zip(chunk) {
            *score = exp::<FUSED>(*score - maximum);
            *sum += *score;
        }
    }
    *block.maximum = maximum;
    *block.sum = *block.sum * shrink + sums.iter().sum::<f32>();
    shrink
}

/// The nearest bf16 value, ties to even; for finite values.
#[inline(always)]
fn round_to_bf16(value: f32) -> f32 {
    let bits = value.to_bits();
    f32::from_bits((bits + 0x7fff + (bits >> 16 & 1)) & 0xffff_0000)
}

/// `hidden += factor * residual; output = normalized(hidden) * weight + bias` for one row.
#[inline(always)]
pub(super) fn norm_row<const FUSED: bool>(row: &mut NormRow<'_>) {
    if let Some((residual, factor)) = row.residual {
        for (hidden, &add) in row.hidden.iter_mut().zip(residual) {
            *hidden += factor * add;
        }
    }
    let count = row.hidden.len() as f32;
    let mean = match row.kind {
        NormKind::Identity | NormKind::Rms => 0.0,
        NormKind::Layer => sum_of(row.hidden, |sum, value| sum + value) / count,
    };
    let squares = sum_of(row.hidden, |sum, value| {
        multiply_add::<FUSED>(value - mean, value - mean, sum)
    });
    let factor = match row.kind {
        NormKind::Identity => 1.0,
        _ => 1.0 / (squares / count + row.epsilon).sqrt(),
    };
    let target: &mut [f32] = match row.output.as_deref_mut() {
        Some(output) => {
            output.copy_from_slice(row.hidden);
            output
        }
        None => row.hidden,
    };
    match row.weight {
        Some(weight) => {
            for (value, &weight) in target.iter_mut().zip(weight) {
                *value = (*value - mean) * factor * weight;
            }
        }
        None => target.iter_mut().for_each(|value| *value = (*value - mean) * factor),
    }
    if let Some(bias) = row.bias {
        target.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
    }
}

/// Folds the values into 16 sums side by side, then these into one; `add` puts a value into a sum.
#[inline(always)]
fn sum_of(values: &[f32], add: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (chunks, rest) = values.as_chunks::<16>();
    for chunk in chunks {
        for (sum, &value) in sums.iter_mut().zip(chunk) {
            *sum = add(*sum, value);
        }
    }
    rest.iter()
        .fold(sums.iter().sum::<f32>(), |sum, &value| add(sum, value))
}

/// Rotates the pairs of one head; `angles` holds half cosines, then half sines.
#[inline(always)]
pub(super) fn rotate_head(pairs: RopePairs, head: &mut [f32], angles: &[f32]) {
    let (cosines, sines) = angles.split_at(angles.len() / 2);
    let half = cosines.len();
    match pairs {
        RopePairs::Halves => {
            let (first, second) = head[..2 * half].split_at_mut(half);
            for (((a, b), &cosine), &sine) in first.iter_mut().zip(second).zip(cosines).zip(sines) {
                (*a, *b) = (*a * cosine - *b * sine, *b * cosine + *a * sine);
            }
        }
        RopePairs::Neighbours => {
            let (pairs, _) = head[..2 * half].as_chunks_mut::<2>();
            for ((pair, &cosine), &sine) in pairs.iter_mut().zip(cosines).zip(sines) {
                let [a, b] = *pair;
                *pair = [a * cosine - b * sine, b * cosine + a * sine];
            }
        }
    }
}

/// `gate = activation(gate) * up`, or without `up` just the activation.
#[inline(always)]
pub(super) fn activate<const FUSED: bool>(activation: Activation, gate: &mut [f32], up: Option<&[f32]>) {
    match activation {
        Activation::Silu => apply(gate, up, silu::<FUSED>),
        Activation::Gelu => apply(gate, up, gelu::<FUSED>),
        Activation::GeluTanh => apply(gate, up, gelu_tanh::<FUSED>),
        Activation::QuickGelu => apply(gate, up, |x| x * sigmoid::<FUSED>(1.702 * x)),
        Activation::Relu => apply(gate, up, |x| x.max(0.0)),
        Activation::Relu2 => apply(gate, up, |x| x.max(0.0) * x.max(0.0)),
        Activation::Sigmoid => apply(gate, up, sigmoid::<FUSED>),
        Activation::Tanh => apply(gate, up, tanh::<FUSED>),
        Activation::Softplus => apply(gate, up, |x| x.max(0.0) + (-x.abs()).exp().ln_1p()),
        Activation::Clamp(limit) => apply(gate, up, |x| x.clamp(-limit, limit)),
        Activation::Softcap(cap) => apply(gate, up, |x| cap * tanh::<FUSED>(x / cap)),
        Activation::Xielu(factors) => apply(gate, up, |x| xielu::<FUSED>(factors, x)),
        Activation::ClampedSwiglu { slope, limit } => {
            let clamped = |x: f32| x.min(limit) * sigmoid::<FUSED>(slope * x.min(limit));
            match up {
                Some(up) => {
                    let pairs = gate.iter_mut().zip(up);
                    pairs.for_each(|(gate, up)| *gate = clamped(*gate) * (1.0 + up.clamp(-limit, limit)));
                }
                None => apply(gate, None, clamped),
            }
        }
    }
}

#[inline(always)]
fn apply(gate: &mut [f32], up: Option<&[f32]>, function: impl Fn(f32) -> f32) {
    match up {
        Some(up) => gate
            .iter_mut()
            .zip(up)
            .for_each(|(gate, &up)| *gate = function(*gate) * up),
        None => gate.iter_mut().for_each(|gate| *gate = function(*gate)),
    }
}
