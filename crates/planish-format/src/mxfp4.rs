//! 4-bit floats (OCP MX specification 1.0) as packed groups, without loss.
//!
//! A code is sign, 2 exponent bits and 1 mantissa bit: 0, .5, 1, 1.5, 2, 3, 4 or 6. Half-units of them are the whole numbers
//! -12 to 12, so that 5-bit codes `12 + half-units` with half the scale of a block hold them exactly.

use bytes::Bytes;

use crate::{FloatType, FormatError, PackedMatrix, PackedShape, Packing, memory, pack_codes};

/// Weights that share an exponent.
const BLOCK: usize = 32;
const BITS: u32 = 5;
const ZERO: u8 = 12;
/// By code: half-units plus 12.
pub const FLOAT4_HALF_UNITS: [u8; 16] = [12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0];
/// The largest exponent for which products of scale and code are finite.
const LARGEST: u8 = 251;

/// The packing that holds 4-bit floats whose scales stand for `group` of them; `None` if that is no group of the format.
pub fn float4_packing(group: usize) -> Option<Packing> {
    Packing::new(BITS, group)
}

/// `codes` hold two weights in a byte, the first in the low bits; `exponents` are powers of two over 127, one for 32 weights of a
/// row. The result has 5 bits, groups of 32 and bf16 scales.
///
/// # Errors
/// If 32 does not divide the columns, a length contradicts the shape, or an exponent stands for NaN or is too large for bf16.
pub fn mxfp4_to_affine(rows: usize, cols: usize, codes: &[u8], exponents: &[u8]) -> Result<PackedMatrix, FormatError> {
    let scale = |&exponent: &u8| match exponent {
        0..=LARGEST => 2f64.powi(i32::from(exponent) - 127) as f32,
        _ => f32::INFINITY,
    };
    let scales: Vec<f32> = exponents.iter().map(scale).collect();
    float4_to_affine(rows, cols, codes, (BLOCK, &scales), FloatType::BF16)
}

/// As [`mxfp4_to_affine`], with a scale for each `group` weights of a row, and packed scales of a type that must hold half of it, and
/// six times, exactly for a result without loss.
///
/// # Errors
/// If the group does not divide the columns, a length contradicts the shape, or a scale is not finite.
pub fn float4_to_affine(
    rows: usize,
    cols: usize,
    codes: &[u8],
    (group, scales): (usize, &[f32]),
    scale_type: FloatType,
) -> Result<PackedMatrix, FormatError> {
    let packing = Packing::checked(BITS, group)?;
    let shape = PackedShape::new(rows, cols, packing, scale_type)?;
    let lengths = [
        ("codes", rows * cols / 2, codes.len()),
        ("scales", rows * shape.groups(), scales.len()),
    ];
    for (part, expected, found) in lengths {
        if expected != found {
            return Err(FormatError::Length {
                part,
                rows,
                cols,
                expected,
                found,
            });
        }
    }
    if let Some(index) = scales.iter().position(|scale| !scale.is_finite()) {
        return Err(FormatError::NonFinite {
            row: index / shape.groups(),
            col: index % shape.groups() * group,
            value: scales[index],
        });
    }
    let halves: Vec<f32> = scales.iter().map(|scale| 0.5 * scale).collect();
    let biases: Vec<f32> = halves.iter().map(|half| -f32::from(ZERO) * half).collect();
    let stored = |values: &[f32]| -> Bytes {
        let mut bytes = memory::filled("weights", scale_type.size_bytes() * values.len(), 0);
        scale_type.encode(values, &mut bytes);
        bytes.into()
    };
    PackedMatrix::new(shape, repack(codes, shape).into(), stored(&halves), stored(&biases))
}

/// Codes of half-units.
fn repack(codes: &[u8], shape: PackedShape) -> Vec<u8> {
    let mut packed = memory::filled("weights", shape.code_bytes(), 0);
    if packed.is_empty() {
        return packed;
    }
    let mut row_codes = vec![0; shape.cols];
    let packed_rows = packed.chunks_exact_mut(shape.code_row_bytes());
    for (row, packed) in codes.chunks_exact(shape.cols / 2).zip(packed_rows) {
        for (pair, &byte) in row_codes.chunks_exact_mut(2).zip(row) {
            pair.copy_from_slice(&[byte & 15, byte >> 4].map(|code| FLOAT4_HALF_UNITS[usize::from(code)]));
        }
        pack_codes(&row_codes, BITS, packed);
    }
    packed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dequantize;

    #[test]
    fn every_code_and_exponent_survives() {
        let floats = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0];
        let codes: Vec<u8> = (0..16u8)
            .map(|pair| ((2 * pair) % 16) | (((2 * pair + 1) % 16) << 4))
            .collect();
        for exponent in 0..=LARGEST {
            let matrix = mxfp4_to_affine(1, 32, &codes, &[exponent]).unwrap();
            let mut found = vec![0.0; 32];
            FloatType::F32.decode(&dequantize(&matrix, FloatType::F32), &mut found);
            for (index, found) in found.into_iter().enumerate() {
                let sign = if index % 16 < 8 { 1.0 } else { -1.0 };
                let expected = sign * floats[index % 8] * 2f64.powi(i32::from(exponent) - 127);
                assert_eq!(f64::from(found), expected, "code {index}, exponent {exponent}");
            }
        }
    }

    #[test]
    fn nothing_becomes_nothing() {
        for (rows, cols) in [(0, 0), (0, 32), (3, 0)] {
            let matrix = mxfp4_to_affine(rows, cols, &[], &[]).unwrap();
            assert_eq!((matrix.rows, matrix.cols, matrix.codes.len()), (rows, cols, 0));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert!(matches!(
            mxfp4_to_affine(1, 40, &[0; 20], &[0]),
            Err(FormatError::GroupDoesNotDivide { .. })
        ));
        assert!(matches!(
            mxfp4_to_affine(2, 32, &[0; 16], &[0; 2]),
            Err(FormatError::Length { part: "codes", .. })
        ));
        assert!(matches!(
            mxfp4_to_affine(1, 64, &[0; 32], &[0, 255]),
            Err(FormatError::NonFinite { row: 0, col: 32, .. })
        ));
    }
}
