//! Packing into small floats, as MLX's modes do it: a code is a float of 4 or 8 bits (OCP's E2M1 and E4M3), a group of them has a
//! scale of one byte and no bias.
//!
//! Source of the rules: the results of `mlx.core.quantize(mode=...)` of MLX 0.32, which these equal bit for bit. Divisions are rounded
//! to the type of the weights, as there.

use crate::float::rounded;
use crate::{FloatMatrix, FloatType, FormatError, memory, pack_codes};

/// A mode of MLX whose codes are floats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatMode {
    /// 4-bit floats, powers of two over 32.
    Mxfp4,
    /// 8-bit floats, powers of two over 32.
    Mxfp8,
    /// 4-bit floats, 8-bit floats over 16.
    Nvfp4,
}

impl FloatMode {
    /// Bits of a code.
    pub fn bits(self) -> u32 {
        match self {
            FloatMode::Mxfp8 => 8,
            FloatMode::Mxfp4 | FloatMode::Nvfp4 => 4,
        }
    }

    /// Codes that share a scale.
    pub fn group(self) -> usize {
        match self {
            FloatMode::Nvfp4 => 16,
            FloatMode::Mxfp4 | FloatMode::Mxfp8 => 32,
        }
    }

    /// The largest magnitude that a code and a scale hold together, if any finite f32 is beyond it.
    pub fn largest_weight(self) -> Option<f32> {
        match self {
            FloatMode::Nvfp4 => Some(LARGEST_FLOAT8 * FLOATS4[7]),
            FloatMode::Mxfp4 | FloatMode::Mxfp8 => None,
        }
    }

    /// What the largest code stands for.
    fn largest(self) -> f32 {
        match self {
            FloatMode::Mxfp8 => LARGEST_FLOAT8,
            FloatMode::Mxfp4 | FloatMode::Nvfp4 => FLOATS4[7],
        }
    }

    /// The byte of a scale, and what it stands for.
    fn scale(self, wanted: f32) -> (u8, f32) {
        match self {
            FloatMode::Nvfp4 => {
                let byte = float8(wanted);
                (byte, float8_value(byte))
            }
            FloatMode::Mxfp4 | FloatMode::Mxfp8 => {
                let byte = power_of_two(wanted);
                (byte, 2f64.powi(i32::from(byte) - 127) as f32)
            }
        }
    }

    fn code(self, value: f32) -> u8 {
        match self {
            FloatMode::Mxfp8 => float8(value),
            FloatMode::Mxfp4 | FloatMode::Nvfp4 => float4(value),
        }
    }
}

/// Codes and scales of some rows.
#[derive(Clone, Debug, PartialEq)]
pub struct FloatCodes {
    /// Little-endian words, codes from their lowest bits on. // (rows, cols * bits / 32)
    pub codes: Vec<u8>,
    /// A byte for each group. // (rows, cols / group)
    pub scales: Vec<u8>,
}

/// Packs a matrix.
///
/// # Errors
/// If the group does not divide the columns, or a weight is NaN or infinite.
pub fn quantize_floats(matrix: FloatMatrix, mode: FloatMode) -> Result<FloatCodes, FormatError> {
    let (rows, cols, group) = (matrix.rows, matrix.cols, mode.group());
    if !cols.is_multiple_of(32) {
        return Err(FormatError::GroupDoesNotDivide { group: 32, cols });
    }
    if let Some((row, col, value)) = crate::first_non_finite(matrix) {
        return Err(FormatError::NonFinite { row, col, value });
    }
    let code_bytes = cols / 8 * mode.bits() as usize;
    let mut packed = FloatCodes {
        codes: memory::filled("weights", rows * code_bytes, 0),
        scales: memory::filled("weights", rows * (cols / group), 0),
    };
    let (mut values, mut codes) = (vec![0.0; cols], vec![0; cols]);
    for row in 0..rows {
        let row_bytes = cols * matrix.float_type.size_bytes();
        matrix
            .float_type
            .decode(&matrix.data[row * row_bytes..][..row_bytes], &mut values);
        let scales = &mut packed.scales[row * (cols / group)..][..cols / group];
        for ((values, codes), scale) in values.chunks(group).zip(codes.chunks_mut(group)).zip(scales) {
            *scale = encode(matrix.float_type, mode, values, codes);
        }
        pack_codes(&codes, mode.bits(), &mut packed.codes[row * code_bytes..][..code_bytes]);
    }
    Ok(packed)
}

/// The codes of one group; returns the byte of its scale.
fn encode(float_type: FloatType, mode: FloatMode, values: &[f32], codes: &mut [u8]) -> u8 {
    let most = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let (byte, scale) = mode.scale(rounded(float_type, most / mode.largest()));
    for (value, code) in values.iter().zip(codes) {
        *code = match scale {
            0.0 => 0,
            _ => mode.code(rounded(float_type, value / scale)),
        };
    }
    byte
}

/// The least power of two that is not below a scale; 1 for 0.
fn power_of_two(scale: f32) -> u8 {
    let bits = scale.to_bits();
    match bits {
        0 => 127,
        _ => ((bits >> 23) + u32::from(bits & 0x007f_ffff != 0)).min(254) as u8,
    }
}

/// Magnitudes of 4-bit floats.
const FLOATS4: [f32; 8] = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];

/// The nearest, of two the smaller. What becomes 0 loses its sign.
fn float4(value: f32) -> u8 {
    let above = |pair: &[f32]| value.abs() > (pair[0] + pair[1]) / 2.0;
    let magnitude = FLOATS4.windows(2).take_while(|pair| above(pair)).count() as u8;
    match magnitude != 0 && value < 0.0 {
        true => magnitude | 8,
        false => magnitude,
    }
}

const LARGEST_FLOAT8: f32 = 448.0;

/// The nearest, of two the even one, at most the largest. A zero keeps its sign.
fn float8(value: f32) -> u8 {
    let magnitude = value.abs().min(LARGEST_FLOAT8);
    // Below the least normal number, 2^-6, steps are as wide as there.
    let exponent = ((magnitude.to_bits() >> 23) as i32 - 127).max(-6);
    let steps = (magnitude * 2f32.powi(3 - exponent)).round_ties_even() as i32;
    let sign = if value.is_sign_negative() { 0x80 } else { 0 };
    ((exponent + 6) * 8 + steps) as u8 | sign
}

/// What the byte of a finite 8-bit float without sign stands for.
fn float8_value(byte: u8) -> f32 {
    let (exponent, mantissa) = (i32::from(byte >> 3), f32::from(byte & 7));
    match exponent {
        0 => mantissa * 2f32.powi(-9),
        _ => (8.0 + mantissa) * 2f32.powi(exponent - 10),
    }
}
