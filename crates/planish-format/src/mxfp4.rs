//! Microscaling 4-bit floats (OCP MX specification 1.0) as packed groups, without loss.
//!
//! A code is sign, 2 exponent bits and 1 mantissa bit: 0, .5, 1, 1.5, 2, 3, 4 or 6. Half-units of them are the whole numbers
//! -12 to 12, so that 5-bit codes `12 + half-units` with a scale of half the block's power of two hold them exactly.

use bytes::Bytes;

use crate::{FloatType, FormatError, PackedMatrix, PackedShape, Packing, memory, pack_codes};

/// Weights that share an exponent.
const BLOCK: usize = 32;
const BITS: u32 = 5;
/// Half-units of the magnitudes, by the low three bits of a code.
const HALF_UNITS: [u8; 8] = [0, 1, 2, 3, 4, 6, 8, 12];
const ZERO: u8 = 12;
/// The largest exponent for which products of scale and code are finite.
const LARGEST: u8 = 251;

/// `codes` hold two weights in a byte, the first in the low bits; `exponents` are powers of two over 127, one for 32 weights of a
/// row. The result has 5 bits, groups of 32 and bf16 scales.
///
/// # Errors
/// If 32 does not divide the columns, a length contradicts the shape, or an exponent stands for NaN or is too large for bf16.
pub fn mxfp4_to_affine(rows: usize, cols: usize, codes: &[u8], exponents: &[u8]) -> Result<PackedMatrix, FormatError> {
    let group = FormatError::GroupDoesNotDivide { cols, group: BLOCK };
    let packing = Packing::new(BITS, BLOCK).ok_or_else(|| group.clone())?;
    let shape = PackedShape::new(rows, cols, packing, FloatType::BF16)?;
    let lengths = [
        ("codes", rows * cols / 2, codes.len()),
        ("scales", rows * shape.groups(), exponents.len()),
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
    if let Some(index) = exponents.iter().position(|&exponent| exponent > LARGEST) {
        return Err(FormatError::NonFinite {
            row: index / shape.groups(),
            col: index % shape.groups() * BLOCK,
            value: f32::INFINITY,
        });
    }
    let scale = |&exponent: &u8| 0.5 * 2f64.powi(i32::from(exponent) - 127);
    let scales: Vec<f32> = exponents.iter().map(|exponent| scale(exponent) as f32).collect();
    let biases: Vec<f32> = scales.iter().map(|scale| -f32::from(ZERO) * scale).collect();
    let bf16 = |values: &[f32]| -> Bytes {
        let mut bytes = memory::filled("weights", 2 * values.len(), 0);
        FloatType::BF16.encode(values, &mut bytes);
        bytes.into()
    };
    PackedMatrix::new(shape, repack(codes, shape).into(), bf16(&scales), bf16(&biases))
}

/// Codes of half-units.
fn repack(codes: &[u8], shape: PackedShape) -> Vec<u8> {
    let half_units = |code: u8| match code & 8 {
        0 => ZERO + HALF_UNITS[usize::from(code & 7)],
        _ => ZERO - HALF_UNITS[usize::from(code & 7)],
    };
    let mut packed = memory::filled("weights", shape.code_bytes(), 0);
    if packed.is_empty() {
        return packed;
    }
    let mut row_codes = vec![0; shape.cols];
    let packed_rows = packed.chunks_exact_mut(shape.code_row_bytes());
    for (row, packed) in codes.chunks_exact(shape.cols / 2).zip(packed_rows) {
        for (pair, &byte) in row_codes.chunks_exact_mut(2).zip(row) {
            pair.copy_from_slice(&[half_units(byte & 15), half_units(byte >> 4)]);
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
