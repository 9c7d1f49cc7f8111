//! The exponential, the error function and what is made of them, in plain f32 that compilers turn into vector code.
//! Error below 3e-7, relative for the exponential.
//!
//! `exp(x) = 2^n * exp(r)` with `n = round(x / ln 2)` and `|r| <= ln 2 / 2`; exp(r) by the Cephes polynomial of degree 7.

use planish_ops::Xielu;
use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Adding it rounds to an integer, which then stands in the low bits.
const ROUNDING: f32 = 12_582_912.0;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// `a * b + c`; fused only where the machine can, since the library's fused version is slow elsewhere.
#[inline(always)]
pub(crate) fn multiply_add<const FUSED: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FUSED { a.mul_add(b, c) } else { a * b + c }
}

/// e^x for x in [-87, 88]; values outside are clamped to that range.
#[inline(always)]
pub(crate) fn exp<const FUSED: bool>(x: f32) -> f32 {
    let x = x.clamp(-87.0, 88.0);
    let shifted = multiply_add::<FUSED>(x, std::f32::consts::LOG2_E, ROUNDING);
    let n = shifted - ROUNDING;
    let r = multiply_add::<FUSED>(n, -LN2_HIGH, x);
    let r = multiply_add::<FUSED>(n, -LN2_LOW, r);
    let mut p = 1.987_569_1e-4;
    p = multiply_add::<FUSED>(p, r, 1.398_2e-3);
    p = multiply_add::<FUSED>(p, r, 8.333_452e-3);
    p = multiply_add::<FUSED>(p, r, 4.166_579_6e-2);
    p = multiply_add::<FUSED>(p, r, 0.166_666_65);
    p = multiply_add::<FUSED>(p, r, 0.5);
    let power = multiply_add::<FUSED>(p * r, r, r) + 1.0;
    let two_to_n = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    power * two_to_n
}

/// x / (1 + e^-x).
#[inline(always)]
pub(crate) fn silu<const FUSED: bool>(x: f32) -> f32 {
    x / (1.0 + exp::<FUSED>(-x))
}

/// 1 / (1 + e^-x).
#[inline(always)]
pub(crate) fn sigmoid<const FUSED: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp::<FUSED>(-x))
}

/// tanh x = 1 - 2 / (e^2x + 1); by its series around 0, where that would cancel.
#[inline(always)]
pub(crate) fn tanh<const FUSED: bool>(x: f32) -> f32 {
    let square = x * x;
    let mut p = 3.592_128e-3;
    for coefficient in [
        -8.863_236e-3,
        2.186_949e-2,
        -5.396_825_4e-2,
        0.133_333_33,
        -0.333_333_33,
        1.0,
    ] {
        p = multiply_add::<FUSED>(p, square, coefficient);
    }
    let far = 1.0 - 2.0 / (exp::<FUSED>(2.0 * x) + 1.0);
    if square < 0.25 { x * p } else { far }
}

/// The tanh form of GELU.
#[inline(always)]
pub(crate) fn gelu_tanh<const FUSED: bool>(x: f32) -> f32 {
    // sqrt(2 / pi)
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    0.5 * x * (1.0 + tanh::<FUSED>(inner))
}

/// The error function: x * P(x^2) / Q(x^2), fitted by least squares on [0, 3.925]; beyond, 1 is the nearest f32.
#[inline(always)]
pub(crate) fn erf<const FUSED: bool>(x: f32) -> f32 {
    let x = x.clamp(-3.925, 3.925);
    let square = x * x;
    let mut p = 2.030_954_6e-6;
    for coefficient in [
        2.874_763_8e-4,
        3.875_725_4e-3,
        5.308_249e-2,
        0.192_958_53,
        FRAC_2_SQRT_PI,
    ] {
        p = multiply_add::<FUSED>(p, square, coefficient);
    }
    let mut q = 3.803_149_6e-5;
    for coefficient in [1.189_597_3e-3, 1.518_714_5e-2, 0.115_161_65, 0.504_336_7, 1.0] {
        q = multiply_add::<FUSED>(q, square, coefficient);
    }
    x * p / q
}

/// x * (1 + erf(x / sqrt 2)) / 2.
#[inline(always)]
pub(crate) fn gelu<const FUSED: bool>(x: f32) -> f32 {
    0.5 * x * (1.0 + erf::<FUSED>(x * FRAC_1_SQRT_2))
}

/// See [`Xielu`].
#[inline(always)]
pub(crate) fn xielu<const FUSED: bool>(factors: Xielu, x: f32) -> f32 {
    let above = factors.positive * x * x;
    let below = factors.negative * (exp::<FUSED>(x.min(factors.limit)) - 1.0 - x);
    let bend = if x > 0.0 { above } else { below };
    multiply_add::<FUSED>(factors.slope, x, bend)
}
