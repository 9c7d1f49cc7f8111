//! What the format refuses, with the message that a user reads.

use bytes::Bytes;
use planish_format::{
    Encoder, FloatMatrix, FloatType, FormatError, PackedMatrix, PackedShape, Packing, QuantizeOptions,
    first_non_finite, quantize, quantize_with,
};

const ENCODERS: [Encoder; 3] = [Encoder::Transformers, Encoder::MlxCpu, Encoder::MlxMetal];

fn packing(bits: u32, group: usize) -> Packing {
    Packing::new(bits, group).expect("a packing")
}

fn bytes_of(float_type: FloatType, weights: &[f32]) -> Vec<u8> {
    let mut bytes = vec![0; weights.len() * float_type.size_bytes()];
    float_type.encode(weights, &mut bytes);
    bytes
}

#[test]
fn packings_that_the_format_lacks() {
    for bits in [0, 1, 7, 9, 16, 33, u32::MAX] {
        assert_eq!(Packing::new(bits, 64), None, "{bits} bits");
    }
    for group in [0, 1, 7, 12, 63, usize::MAX] {
        assert_eq!(Packing::new(4, group), None, "group {group}");
    }
}

#[test]
fn shapes_that_do_not_fit() {
    let refusal = |rows, cols, packing| {
        PackedShape::new(rows, cols, packing, FloatType::F16)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refusal(1, 100, packing(4, 64)),
        "100 columns are not a multiple of the group size 64"
    );
    assert_eq!(
        refusal(1, 24, packing(3, 8)),
        "a row of 24 codes of 3 bits does not fill whole 32-bit words"
    );
    assert_eq!(
        refusal(1 << 62, 64, packing(4, 64)),
        "a matrix of 4611686018427387904 x 64 is too large"
    );
}

#[test]
fn parts_of_the_wrong_length() {
    let shape = PackedShape::new(2, 64, packing(4, 32), FloatType::BF16).expect("a shape");
    let part = |length| Bytes::from(vec![0; length]);
    PackedMatrix::new(shape, part(64), part(8), part(8)).expect("the right lengths");
    let refusal = |codes, scales, biases| {
        PackedMatrix::new(shape, part(codes), part(scales), part(biases))
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refusal(63, 8, 8),
        "codes of a 2 x 64 matrix: expected 64 bytes, found 63"
    );
    assert_eq!(
        refusal(64, 9, 8),
        "scales of a 2 x 64 matrix: expected 8 bytes, found 9"
    );
    assert_eq!(
        refusal(64, 8, 0),
        "biases of a 2 x 64 matrix: expected 8 bytes, found 0"
    );

    let refusal = FloatMatrix::new(2, 64, FloatType::F32, &[0; 511])
        .unwrap_err()
        .to_string();
    assert_eq!(refusal, "weights of a 2 x 64 matrix: expected 512 bytes, found 511");
    assert!(FloatMatrix::new(usize::MAX, 64, FloatType::F32, &[]).is_err());
}

#[test]
fn weights_that_are_not_finite() {
    for float_type in [FloatType::F32, FloatType::F16, FloatType::BF16] {
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut weights = vec![0.5; 5 * 64];
            let clean = bytes_of(float_type, &weights);
            assert_eq!(
                first_non_finite(FloatMatrix::new(5, 64, float_type, &clean).expect("lengths fit")),
                None
            );

            weights[3 * 64 + 17] = value;
            weights[3 * 64 + 60] = f32::NAN;
            weights[4 * 64] = f32::NAN;
            let bytes = bytes_of(float_type, &weights);
            let source = FloatMatrix::new(5, 64, float_type, &bytes).expect("lengths fit");
            let error = quantize(source, packing(4, 64), Encoder::MlxCpu).unwrap_err();
            assert!(
                matches!(error, FormatError::NonFinite { row: 3, col: 17, .. }),
                "{error}"
            );
            assert_eq!(error.to_string(), format!("the weight at row 3, column 17 is {value}"));
        }
    }
}

#[test]
fn weights_that_are_not_finite_but_allowed() {
    let mut weights = vec![0.5; 64];
    weights[5] = f32::NAN;
    weights[6] = f32::INFINITY;
    let bytes = bytes_of(FloatType::F32, &weights);
    for encoder in ENCODERS {
        let source = FloatMatrix::new(1, 64, FloatType::F32, &bytes).expect("lengths fit");
        let packing = packing(4, 32);
        let options = QuantizeOptions {
            packing,
            rule: encoder.into(),
            scale_type: FloatType::F32,
            allow_non_finite: true,
        };
        let matrix = quantize_with(source, options).expect("allowed");
        let mut decoded = vec![0.0; 64];
        matrix.dequantize_row(0, &mut decoded);
        assert!(
            decoded[32..].iter().all(|&weight| (weight - 0.5).abs() < 1e-6),
            "the other group is as ever"
        );
    }
}

/// Finite weights whose range is not: the scale becomes infinite and all codes zero, as in MLX.
#[test]
fn a_range_beyond_f32() {
    let weights: Vec<f32> = (0..64).map(|index| if index % 2 == 0 { 3e38 } else { -3e38 }).collect();
    let bytes = bytes_of(FloatType::F32, &weights);
    for encoder in ENCODERS {
        let source = FloatMatrix::new(1, 64, FloatType::F32, &bytes).expect("lengths fit");
        let matrix = quantize(source, packing(4, 64), encoder).expect("finite weights");
        assert!(matrix.codes.iter().all(|&code| code == 0), "{encoder:?}");
    }
}

#[test]
fn nothing_to_do() {
    for (rows, cols) in [(0, 64), (0, 0), (3, 0)] {
        let source = FloatMatrix::new(rows, cols, FloatType::F16, &[]).expect("lengths fit");
        assert_eq!(first_non_finite(source), None);
        let matrix = quantize(source, packing(4, 64), Encoder::Transformers).expect("empty");
        assert!(matrix.codes.is_empty() && matrix.scales.is_empty());
        assert!(planish_format::dequantize(&matrix, FloatType::F32).is_empty());
    }
}
