//! The rules of the three encoders for one group: weights (group) in `f32` -> scale, bias, codes (group).
//!
//! All arithmetic is in `f32`, divisions are true divisions and nothing is fused, so the results equal the peers' bit
//! for bit: `_affine_quantize_tensor` in transformers' integrations/metal_quantization.py; `quantize` in MLX's
//! backend/cpu/quantized.cpp; `affine_quantize` in MLX's backend/metal/kernels/quantized.h (the CUDA kernel is the same).

use crate::Encoder;

/// Scale and bias of one group, as the codes are chosen with: before rounding to the stored type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Affine {
    pub scale: f32,
    pub bias: f32,
}

/// Scale and bias of a group. `levels` is the largest code, `2^bits - 1`.
#[inline(always)]
pub(crate) fn fit(encoder: Encoder, levels: f32, weights: &[f32]) -> Affine {
    fit_range(encoder, levels, weights, range(weights))
}

/// As [`fit`], for the least and the largest weight.
#[inline(always)]
pub(crate) fn fit_range(encoder: Encoder, levels: f32, weights: &[f32], (low, high): (f32, f32)) -> Affine {
    match encoder {
        Encoder::Transformers => fit_transformers(levels, first_zero_sign(low, weights), high),
        Encoder::MlxCpu => fit_mlx(levels, low, high, f32::round_ties_even),
        // The kernel starts its maximum at zero: a group without positive weights gets the range [low, 0].
        Encoder::MlxMetal => fit_mlx(levels, low, high.max(0.0), f32::round),
    }
}

fn fit_transformers(levels: f32, low: f32, high: f32) -> Affine {
    Affine {
        scale: ((high - low) / levels).max(1e-8),
        bias: low,
    }
}

/// The edge farther from zero becomes the bias and the scale is bent so that zero has a code.
fn fit_mlx(levels: f32, low: f32, high: f32, round: fn(f32) -> f32) -> Affine {
    let step = ((high - low) / levels).max(1e-7);
    let (edge, scale) = if low.abs() > high.abs() {
        (low, step)
    } else {
        (high, -step)
    };
    let code_of_zero = round(edge / scale);
    if code_of_zero == 0.0 {
        Affine { scale, bias: 0.0 }
    } else {
        Affine {
            scale: edge / code_of_zero,
            bias: edge,
        }
    }
}

/// Smallest and largest weight; NaN is passed over. Which of two zeros of unlike sign comes out is not specified.
#[inline(always)]
pub(crate) fn range(weights: &[f32]) -> (f32, f32) {
    let mut low = [f32::INFINITY; 8];
    let mut high = [f32::NEG_INFINITY; 8];
    for eight in weights.as_chunks::<8>().0 {
        for lane in 0..8 {
            low[lane] = if eight[lane] < low[lane] {
                eight[lane]
            } else {
                low[lane]
            };
            high[lane] = if eight[lane] > high[lane] {
                eight[lane]
            } else {
                high[lane]
            };
        }
    }
    (
        low.into_iter().fold(f32::INFINITY, f32::min),
        high.into_iter().fold(f32::NEG_INFINITY, f32::max),
    )
}

/// torch's minimum keeps the first of equal values, which shows in the sign of a zero bias.
fn first_zero_sign(low: f32, weights: &[f32]) -> f32 {
    if low == 0.0 {
        weights.iter().copied().find(|&weight| weight == 0.0).unwrap_or(low)
    } else {
        low
    }
}

/// The codes of a group, to nearest; ties go to even (Transformers, MlxCpu) or away from zero (MlxMetal). A weight that
/// is NaN gets code 0.
#[inline(always)]
pub(crate) fn encode_group<const TIES_AWAY: bool>(levels: f32, affine: Affine, weights: &[f32], codes: &mut [u8]) {
    for (weight, code) in weights.iter().zip(codes) {
        let exact = (weight - affine.bias) / affine.scale;
        // Clamping to whole numbers first does not change the rounded result.
        let clamped = if exact > 0.0 { exact } else { 0.0 };
        let clamped = if clamped < levels { clamped } else { levels };
        *code = if TIES_AWAY {
            round_ties_away(clamped)
        } else {
            round_ties_even(clamped)
        };
    }
}

/// From here on up the gap between neighbouring `f32` is one, so that adding it rounds to a whole number.
const WHOLE: f32 = 8_388_608.0; // 2^23

/// Rounds a value of 0 to 255; the default rounding mode of the addition is to nearest, ties to even.
#[inline(always)]
fn round_ties_even(value: f32) -> u8 {
    (value + WHOLE).to_bits() as u8
}

/// Rounds a value of 0 to 255, ties away from zero: a tie that went down to even is put back up.
#[inline(always)]
fn round_ties_away(value: f32) -> u8 {
    let even = value + WHOLE;
    let tie_below = value - (even - WHOLE) == 0.5;
    (even.to_bits() + u32::from(tie_below)) as u8
}
