//! Properties that hold for all weights: error bounds, the formula of decoding, odd shapes.

use planish_format::{
    Encoder, FloatMatrix, FloatType, PackedMatrix, PackedShape, Packing, QuantizeOptions, code_at, dequantize,
    quantize, quantize_with,
};
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Problem {
    rows: usize,
    cols: usize,
    packing: Packing,
    encoder: Encoder,
    weights: Vec<f32>, // (rows, cols)
}

impl Problem {
    fn bytes(&self) -> Vec<u8> {
        self.weights.iter().flat_map(|weight| weight.to_le_bytes()).collect()
    }

    fn quantize(&self) -> PackedMatrix {
        let bytes = self.bytes();
        let source = FloatMatrix::new(self.rows, self.cols, FloatType::F32, &bytes).expect("lengths fit");
        quantize(source, self.packing, self.encoder).expect("finite weights")
    }
}

fn encoders() -> impl Strategy<Value = Encoder> {
    prop::sample::select(vec![Encoder::Transformers, Encoder::MlxCpu, Encoder::MlxMetal])
}

fn packings() -> impl Strategy<Value = Packing> {
    (prop::sample::select(vec![2u32, 3, 4, 5, 6, 8]), 1usize..=17)
        .prop_map(|(bits, eights)| Packing::new(bits, eights * 8).expect("a packing"))
}

/// Columns are whole groups and, by four groups at a time, whole words.
fn problems() -> impl Strategy<Value = Problem> {
    (0usize..4, 1usize..3, packings(), encoders(), -30i32..30).prop_flat_map(
        |(rows, fours, packing, encoder, power)| {
            let cols = packing.group() * 4 * fours;
            let scale = 2f32.powi(power);
            prop::collection::vec((-1f32..1.0).prop_map(move |weight| weight * scale), rows * cols).prop_map(
                move |weights| Problem {
                    rows,
                    cols,
                    packing,
                    encoder,
                    weights,
                },
            )
        },
    )
}

fn values(float_type: FloatType, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / float_type.size_bytes()];
    float_type.decode(bytes, &mut values);
    values
}

/// The step between codes of a group: its range over the largest code, but not below what the encoder allows.
fn step(problem: &Problem, group: &[f32]) -> f32 {
    let low = group.iter().copied().fold(f32::INFINITY, f32::min);
    let high = group.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // MLX on Metal counts zero into the range.
    let high = if problem.encoder == Encoder::MlxMetal {
        high.max(0.0)
    } else {
        high
    };
    let smallest = if problem.encoder == Encoder::Transformers {
        1e-8
    } else {
        1e-7
    };
    ((high - low) / ((1u32 << problem.packing.bits()) - 1) as f32).max(smallest)
}

proptest! {
    /// Transformers' codes are within half a step. MLX bends the scale, so that the far edge may clip by up to one.
    #[test]
    fn weights_come_back_within_a_step(problem in problems()) {
        let decoded = values(FloatType::F32, &dequantize(&problem.quantize(), FloatType::F32));
        let steps = if problem.encoder == Encoder::Transformers { 0.5 } else { 1.0 };
        let groups = problem.weights.chunks(problem.packing.group());
        for (group, decoded) in groups.zip(decoded.chunks(problem.packing.group())) {
            let largest = group.iter().fold(0f32, |largest, weight| largest.max(weight.abs()));
            let bound = steps * step(&problem, group) + largest * 1e-6;
            for (weight, decoded) in group.iter().zip(decoded) {
                let error = (weight - decoded).abs();
                prop_assert!(error <= bound, "{} came back as {}, more than {} away", weight, decoded, bound);
            }
        }
    }

    /// Every way of reading a packed matrix gives `scale * code + bias` of the bit at a time definition.
    #[test]
    fn decoding_follows_the_formula(problem in problems()) {
        let matrix = problem.quantize();
        let all = dequantize(&matrix, FloatType::F32);
        let halves = dequantize(&matrix, FloatType::BF16);
        for row in 0..problem.rows {
            let packed = matrix.row(row);
            let codes: Vec<u8> = (0..problem.cols).map(|col| code_at(packed.codes, problem.packing.bits(), col)).collect();
            let (scales, biases) = (values(FloatType::F32, packed.scales), values(FloatType::F32, packed.biases));
            let group = problem.packing.group();
            let expected: Vec<f32> = (0..problem.cols)
                .map(|col| scales[col / group] * f32::from(codes[col]) + biases[col / group])
                .collect();

            let (mut found_codes, mut found) = (vec![0; problem.cols], vec![0.0; problem.cols]);
            matrix.row_codes(row, &mut found_codes);
            matrix.dequantize_row(row, &mut found);
            prop_assert_eq!(found_codes, codes);
            prop_assert_eq!(&found, &expected);

            let span = row * problem.cols..(row + 1) * problem.cols;
            prop_assert_eq!(&values(FloatType::F32, &all)[span.clone()], &expected[..]);
            let mut rounded = vec![0; problem.cols * 2];
            FloatType::BF16.encode(&expected, &mut rounded);
            prop_assert_eq!(&halves[span.start * 2..span.end * 2], &rounded[..]);
            prop_assert_eq!(dequantize(&matrix.slice_rows(row..row + 1), FloatType::BF16), rounded);
        }
    }

    /// Decoding is linear in scales and biases: twice both is twice the weights.
    #[test]
    fn decoding_is_linear(problem in problems()) {
        let matrix = problem.quantize();
        let twice = |part: &[u8]| -> Vec<u8> {
            values(FloatType::F32, part).into_iter().flat_map(|value| (2.0 * value).to_le_bytes()).collect()
        };
        let (scales, biases) = (twice(&matrix.scales).into(), twice(&matrix.biases).into());
        let doubled = PackedMatrix::new(matrix.shape(), matrix.codes.clone(), scales, biases).expect("lengths fit");
        let expected: Vec<f32> =
            values(FloatType::F32, &dequantize(&matrix, FloatType::F32)).into_iter().map(|weight| 2.0 * weight).collect();
        prop_assert_eq!(values(FloatType::F32, &dequantize(&doubled, FloatType::F32)), expected);
    }

    /// The type of the scales changes neither the codes nor more than the rounding of scales and biases.
    #[test]
    fn the_scale_type_only_rounds(problem in problems()) {
        let bytes = problem.bytes();
        let source = FloatMatrix::new(problem.rows, problem.cols, FloatType::F32, &bytes).expect("lengths fit");
        let exact = problem.quantize();
        let options = QuantizeOptions {
            packing: problem.packing,
            rule: problem.encoder.into(),
            scale_type: FloatType::BF16,
            allow_non_finite: false,
        };
        let rounded = quantize_with(source, options).expect("finite weights");
        prop_assert_eq!(&rounded.codes, &exact.codes);
        for (rounded, exact) in [(&rounded.scales, &exact.scales), (&rounded.biases, &exact.biases)] {
            let mut expected = vec![0; rounded.len()];
            FloatType::BF16.encode(&values(FloatType::F32, exact), &mut expected);
            prop_assert_eq!(&rounded[..], &expected[..]);
        }
    }

    /// A shape either fits, and every size is whole, or is refused; nothing panics.
    #[test]
    fn shapes_fit_or_are_refused(packing in packings(), rows in any::<usize>(), cols in any::<usize>()) {
        for cols in [cols, cols % 4096, cols % 64 * packing.group()] {
            if let Ok(shape) = PackedShape::new(rows, cols, packing, FloatType::F32) {
                prop_assert_eq!(shape.groups() * packing.group(), cols);
                prop_assert_eq!(shape.code_row_bytes() as u128 * 8, cols as u128 * u128::from(packing.bits()));
                prop_assert_eq!(shape.code_row_bytes() % 4, 0);
                prop_assert!(shape.code_bytes().checked_add(2 * shape.scale_bytes()).is_some());
            }
        }
    }
}
