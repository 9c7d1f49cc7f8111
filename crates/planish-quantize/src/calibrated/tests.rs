//! Against straightforward sums in f64, and the invariants of the method.

use planish_format::{FloatMatrix, QuantizeOptions, Rule, quantize_with};
use proptest::prelude::*;

use super::*;

/// Numbers about as a bell curve has them, by a seed.
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count).map(|_| (0..4).map(|_| next()).sum()).collect()
}

/// Rows of inputs of which neighbours have to do with each other and some are large.
fn inputs(seed: u64, rows: usize, cols: usize) -> Vec<f32> {
    let mut inputs = values(seed, rows * cols);
    for row in inputs.chunks_exact_mut(cols) {
        for col in 1..cols {
            row[col] = 0.8 * row[col - 1] + 0.6 * row[col];
        }
        row.iter_mut().step_by(7).for_each(|value| *value *= 3.0);
    }
    inputs
}

fn searched(weights: &[f32], cols: usize, packing: Packing, scale_type: FloatType) -> PackedMatrix {
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let matrix = FloatMatrix::new(weights.len() / cols, cols, FloatType::F32, &bytes).unwrap();
    let options = QuantizeOptions {
        packing,
        rule: Rule::Search { importance: None },
        scale_type,
        allow_non_finite: false,
    };
    quantize_with(matrix, options).unwrap()
}

fn moments(inputs: &[f32], original: Option<&[f32]>, cols: usize) -> Moments {
    let mut moments = Moments::new(cols);
    moments.add(inputs, original);
    moments
}

/// `mean of (d a)^2` over the inputs, summed over rows: what `d H d^T` stands for without damping.
fn output_error(packed: &PackedMatrix, weights: &[f32], inputs: &[f32]) -> f64 {
    let cols = packed.cols;
    let mut sum = 0.0;
    let mut row_weights = vec![0.0; cols];
    for (row, weights) in weights.chunks_exact(cols).enumerate() {
        packed.dequantize_row(row, &mut row_weights);
        let off: Vec<f64> = row_weights
            .iter()
            .zip(weights)
            .map(|(a, b)| f64::from(*a) - f64::from(*b))
            .collect();
        for input in inputs.chunks_exact(cols) {
            sum += off
                .iter()
                .zip(input)
                .map(|(off, a)| off * f64::from(*a))
                .sum::<f64>()
                .powi(2);
        }
    }
    sum / (inputs.len() / cols) as f64
}

fn packing(bits: u32, group: usize) -> Packing {
    Packing::new(bits, group).unwrap()
}

#[test]
fn moments_are_means_of_products() {
    let (rows, cols) = (300, 24);
    let (a, original) = (inputs(1, rows, cols), inputs(2, rows, cols));
    let mut found = Moments::new(cols);
    for (a, original) in a.chunks(cols * 130).zip(original.chunks(cols * 130)) {
        found.add(a, Some(original));
    }
    assert_eq!(found.rows(), 300);
    let (squares, drift) = found.means();
    let drift = drift.unwrap();
    for i in 0..cols {
        for j in 0..cols {
            let mean = |left: &dyn Fn(usize) -> f64| {
                (0..rows)
                    .map(|row| left(row) * f64::from(a[row * cols + j]))
                    .sum::<f64>()
                    / rows as f64
            };
            let expected = mean(&|row| f64::from(a[row * cols + i]));
            assert!((f64::from(squares[i * cols + j]) - expected).abs() < 1e-5, "{i} {j}");
            let expected = mean(&|row| f64::from(original[row * cols + i]) - f64::from(a[row * cols + i]));
            assert!((f64::from(drift[i * cols + j]) - expected).abs() < 1e-5, "{i} {j}");
        }
    }
}

#[test]
fn factors_give_the_matrix_and_its_inverse() {
    // More than two blocks, and a part of one.
    let cols = 152;
    let found = InputBasis::new(moments(&inputs(3, 900, cols), None, cols), 8).unwrap();
    let at = |matrix: &[f32], row: usize, col: usize| f64::from(matrix[row * cols + col]);
    let mut sorted = found.order.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..cols).collect::<Vec<_>>());
    // H U^T U = 1, in the order of the factor.
    for i in 0..cols {
        for j in 0..cols {
            let inverse = |k: usize| {
                (0..cols)
                    .map(|p| at(&found.upper, p, k) * at(&found.upper, p, j))
                    .sum::<f64>()
            };
            let product: f64 = (0..cols)
                .map(|k| at(&found.squares, found.order[i], found.order[k]) * inverse(k))
                .sum();
            let expected = if i == j { 1.0 } else { 0.0 };
            assert!((product - expected).abs() < 2e-3, "{i} {j}: {product}");
            assert!(j >= i || at(&found.upper, i, j) == 0.0);
        }
    }
}

#[test]
fn drift_moves_the_target_to_what_the_inputs_now_need() {
    // Inputs shrunk to 0.8: half of 0.25 / (1 + damping) is made up for.
    let cols = 16;
    let original = values(4, 4000 * cols);
    let now: Vec<f32> = original.iter().map(|value| value * 0.8).collect();
    let basis = InputBasis::new(moments(&now, Some(&original), cols), 8).unwrap();
    let weights = values(5, cols);
    let target = basis.target(&Panel::of(&weights, cols));
    for (target, weight) in target.row(0).iter().zip(&weights) {
        let expected = weight * (1.0 + 0.5 * 0.25 / 1.05);
        assert!((target - expected).abs() < 0.01, "{target} for {weight}");
    }
    let same = InputBasis::new(moments(&now, Some(&now), cols), 8).unwrap();
    assert_eq!(
        same.target(&Panel::of(&weights, cols)).row(0),
        &weights[..],
        "no drift, no change"
    );
}

#[test]
fn drift_is_the_solution_of_its_system() {
    // More than two blocks, and a part of one.
    let cols = 152;
    let (now, original) = (inputs(12, 900, cols), inputs(13, 900, cols));
    let seen = moments(&now, Some(&original), cols);
    let (squares, expected) = seen.clone().means();
    let expected = expected.unwrap();
    let drift = InputBasis::new(seen, 8).unwrap().drift.unwrap();
    let soft = 0.05 * (0..cols).map(|col| f64::from(squares[col * (cols + 1)])).sum::<f64>() / cols as f64;
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    for row in 0..cols {
        for col in 0..cols {
            let products = (0..cols).map(|k| f64::from(drift[row * cols + k]) * f64::from(squares[k * cols + col]));
            let product = products.sum::<f64>() + soft * f64::from(drift[row * cols + col]);
            let off = (product - f64::from(expected[row * cols + col])).abs();
            assert!(off < 1e-4 * f64::from(largest), "{row} {col}: {off}");
        }
    }
}

#[test]
fn outputs_come_closer() {
    let cols = 128;
    let (seen, weights) = (inputs(6, 2000, cols), values(7, 48 * cols));
    let unseen = inputs(8, 500, cols);
    for (bits, share) in [(2, 0.6), (3, 0.6), (4, 0.6), (8, 0.95)] {
        let before = searched(&weights, cols, packing(bits, 32), FloatType::BF16);
        let basis = InputBasis::new(moments(&seen, None, cols), 32).unwrap();
        let found = calibrate_rows(&basis, &weights, &before);
        let (old, new) = (
            output_error(&before, &weights, &unseen),
            output_error(&found.packed, &weights, &unseen),
        );
        assert!(new < share * old, "{bits} bits: {new} of {old} on other inputs");
        // What is reported is the mean square, but for damping.
        let reported = found.error / output_error(&found.packed, &weights, &seen);
        assert!((0.99..1.2).contains(&reported), "{bits} bits: {reported}");
    }
}

/// With H = 1 nothing is fed back: scale and bias are those of the search, and codes the nearest.
#[test]
fn inputs_that_have_nothing_to_do_with_each_other_change_nothing() {
    let (cols, group) = (64, 64);
    let mut one = Moments::new(cols);
    let mut rows = vec![0.0; cols * cols];
    (0..cols).for_each(|col| rows[col * (cols + 1)] = 1.0);
    one.add(&rows, None);
    let basis = InputBasis::new(one, group).unwrap();
    let weights = values(9, 16 * cols);
    let mut search = GroupSearch::new(packing(3, group), FloatType::F16);
    let found = feedback::codes(&basis, &Panel::of(&weights, cols), 7.0, &mut search);
    for (row, weights) in found.iter().zip(weights.chunks_exact(cols)) {
        let (scale, bias) = search.find(weights, &vec![1.0; cols]);
        assert_eq!((row.scales[0], row.biases[0]), (scale, bias));
        for (code, weight) in row.codes.iter().zip(weights) {
            assert_eq!(f32::from(*code), nearest(*weight, scale, bias, 7.0));
        }
    }
}

#[test]
fn dead_columns_and_rows_of_zeros_do_no_harm() {
    let cols = 64;
    let mut seen = inputs(10, 400, cols);
    seen.chunks_exact_mut(cols).for_each(|row| row[..20].fill(0.0));
    let mut weights = values(11, 20 * cols);
    weights[..cols].fill(0.0);
    weights[cols..2 * cols].fill(0.25);
    let before = searched(&weights, cols, packing(4, 16), FloatType::BF16);
    let basis = InputBasis::new(moments(&seen, None, cols), 16).unwrap();
    let found = calibrate_rows(&basis, &weights, &before).packed;
    let mut row = vec![1.0; cols];
    found.dequantize_row(0, &mut row);
    assert!(row.iter().all(|value| value.abs() < 1e-6), "{row:?}");
    found.dequantize_row(1, &mut row);
    assert!(row.iter().all(|value| (value - 0.25).abs() < 1e-3), "{row:?}");
    for (index, weights) in weights.chunks_exact(cols).enumerate() {
        found.dequantize_row(index, &mut row);
        let off = row.iter().zip(weights).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(off < 0.5, "row {index} is {off} off");
    }
}

#[test]
fn inputs_that_tell_nothing_give_no_basis() {
    assert!(InputBasis::new(Moments::new(16), 8).is_none(), "none");
    assert!(InputBasis::new(moments(&[0.0; 32], None, 16), 8).is_none(), "zeros");
    assert!(
        InputBasis::new(moments(&[f32::NAN; 32], None, 16), 8).is_none(),
        "no numbers"
    );
    assert!(
        InputBasis::new(moments(&[1e30; 32], None, 16), 8).is_none(),
        "too large"
    );
    assert!(
        InputBasis::new(moments(&[1.0; 32], None, 16), 32).is_none(),
        "part of a group"
    );
    assert!(
        InputBasis::new(moments(&[1.0; 16], None, 16), 8).is_some(),
        "one row, damped"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// No row is worse than it was by search, whatever the sizes; one thread and three give the same bytes.
    #[test]
    fn no_row_is_worse_and_threads_do_not_matter(
        seed in 0u64..1000,
        bits in prop::sample::select(Packing::WIDTHS.to_vec()),
        (group, groups) in prop::sample::select(vec![(8, 4), (16, 6), (32, 2), (64, 3), (40, 4)]),
        rows in 1usize..40,
        drifted in any::<bool>(),
        scale_type in prop::sample::select(vec![FloatType::F32, FloatType::F16, FloatType::BF16]),
    ) {
        let cols = group * groups;
        let (seen, original) = (inputs(seed, 90, cols), inputs(seed, 90, cols).iter().map(|a| a * 1.05).collect::<Vec<_>>());
        let weights = values(seed + 1, rows * cols);
        let before = searched(&weights, cols, packing(bits, group), scale_type);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let basis = InputBasis::new(moments(&seen, drifted.then_some(&original), cols), group).unwrap();
                let found = calibrate_rows(&basis, &weights, &before);
                let target = basis.target(&Panel::of(&weights[..cols], cols));
                let first = [Row::of(&before, 0), Row::of(&found.packed, 0)];
                (found, refit::errors(&basis, &target, &first[..1])[0], refit::errors(&basis, &target, &first[1..])[0])
            })
        };
        let ((one, old, new), (three, ..)) = (run(1), run(3));
        prop_assert_eq!(&one.packed.codes, &three.packed.codes);
        prop_assert_eq!(&one.packed.scales, &three.packed.scales);
        prop_assert_eq!(&one.packed.biases, &three.packed.biases);
        prop_assert_eq!(one.error.to_bits(), three.error.to_bits());
        prop_assert!(one.error <= one.searched_error && new <= old, "{} {}, {new} {old}", one.error, one.searched_error);
    }

    /// Scales, biases and codes that are gone over never cost anything.
    #[test]
    fn improving_lowers_the_error_of_every_row(seed in 0u64..1000, bits in 2u32..5) {
        let (cols, group) = (96, 32);
        let weights = values(seed, 16 * cols);
        let basis = InputBasis::new(moments(&inputs(seed, 60, cols), None, cols), group).unwrap();
        let target = basis.target(&Panel::of(&weights, cols));
        let mut search = GroupSearch::new(packing(bits, group), FloatType::BF16);
        let levels = ((1u32 << bits) - 1) as f32;
        let mut rows = feedback::codes(&basis, &target, levels, &mut search);
        let before = refit::errors(&basis, &target, &rows);
        let mut after = before.clone();
        refit::improve(&basis, &target, levels, FloatType::BF16, &mut rows, &mut after);
        prop_assert_eq!(&after, &refit::errors(&basis, &target, &rows), "what is said is so");
        prop_assert!(after.iter().zip(&before).all(|(after, before)| after <= before));
        prop_assert!(after.iter().sum::<f64>() < 0.97 * before.iter().sum::<f64>());
    }

    /// A model that nothing has changed has no drift: its two streams give the codes of one.
    #[test]
    fn equal_streams_are_one(seed in 0u64..1000, bits in prop::sample::select(Packing::WIDTHS.to_vec()), rows in 1usize..24) {
        let (cols, group) = (64, 32);
        let (seen, weights) = (inputs(seed, 80, cols), values(seed + 1, rows * cols));
        let before = searched(&weights, cols, packing(bits, group), FloatType::BF16);
        let run = |original: Option<&[f32]>| {
            let basis = InputBasis::new(moments(&seen, original, cols), group).unwrap();
            calibrate_rows(&basis, &weights, &before).packed
        };
        let (one, two) = (run(None), run(Some(&seen)));
        prop_assert_eq!((one.codes, one.scales, one.biases), (two.codes, two.scales, two.biases));
    }

    /// Sums do not depend on the order of pieces, but for rounding.
    #[test]
    fn pieces_may_come_in_any_order(seed in 0u64..1000, lengths in prop::collection::vec(1usize..300, 1..6)) {
        let cols = 24;
        let pieces: Vec<(Vec<f32>, Vec<f32>)> = lengths
            .iter()
            .zip(seed..)
            .map(|(&rows, seed)| (inputs(seed, rows, cols), inputs(seed + 500, rows, cols)))
            .collect();
        let sums = |pieces: &mut dyn Iterator<Item = &(Vec<f32>, Vec<f32>)>| {
            let mut sums = Moments::new(cols);
            pieces.for_each(|(now, original)| sums.add(now, Some(original)));
            let (squares, drift) = sums.means();
            [squares, drift.unwrap()].concat()
        };
        let (forth, back) = (sums(&mut pieces.iter()), sums(&mut pieces.iter().rev()));
        let largest = forth.iter().fold(0f32, |largest, sum| largest.max(sum.abs()));
        for (forth, back) in forth.iter().zip(&back) {
            prop_assert!((forth - back).abs() <= 1e-5 * largest, "{} and {}", forth, back);
        }
    }
}
