//! The vector functions of every instruction set that this machine has, against plain formulas in f64.

use half::f16;
use planish_cpu::vector::{NormRow, PositionBias, Product, SoftmaxBlock, VectorFunctions, vector_functions};
use planish_format::Isa;
use planish_ops::{Activation, AlibiRule, NormKind, RopePairs};

type Formula = fn(f64) -> f64;

fn each_set(test: impl Fn(&str, &VectorFunctions)) {
    let mut count = 0;
    for isa in Isa::supported() {
        test(isa.name(), vector_functions(isa));
        count += 1;
    }
    assert!(count > 0);
}

/// Numbers between -spread and spread, the same in every run.
fn numbers(seed: u32, count: usize, spread: f32) -> Vec<f32> {
    let value =
        |i: u32| ((i.wrapping_mul(2_654_435_761).wrapping_add(seed * 977)) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..count as u32).map(|i| value(i + 1) * spread).collect()
}

#[test]
fn products_of_every_size() {
    each_set(|name, functions| {
        for (rows, depth, cols) in [
            (1, 1, 16),
            (3, 64, 64),
            (6, 33, 80),
            (7, 128, 64),
            (13, 20, 48),
            (48, 64, 128),
        ] {
            for accumulate in [false, true] {
                let left_stride = depth + 3;
                let (left, right) = (numbers(1, rows * left_stride, 1.0), numbers(2, depth * cols, 1.0));
                let halves: Vec<f16> = right.iter().map(|&value| f16::from_f32(value)).collect();
                let bytes: Vec<i8> = right.iter().map(|&value| (value * 127.0) as i8).collect();
                let before = numbers(3, rows * cols, 1.0);
                let [mut single, mut half, mut byte] = [before.clone(), before.clone(), before.clone()];
                // SAFETY: the machine has the instruction set.
                unsafe {
                    (functions.product_f32)(&mut Product {
                        left: &left,
                        left_stride,
                        right: &right,
                        ahead: &right,
                        rows,
                        depth,
                        cols,
                        accumulate,
                        output: &mut single,
                    });
                    (functions.product_f16)(&mut Product {
                        left: &left,
                        left_stride,
                        right: &halves,
                        ahead: &[],
                        rows,
                        depth,
                        cols,
                        accumulate,
                        output: &mut half,
                    });
                    (functions.product_i8)(&mut Product {
                        left: &left,
                        left_stride,
                        right: &bytes,
                        ahead: &bytes,
                        rows,
                        depth,
                        cols,
                        accumulate,
                        output: &mut byte,
                    });
                }
                for row in 0..rows {
                    for col in 0..cols {
                        let start = if accumulate {
                            f64::from(before[row * cols + col])
                        } else {
                            0.0
                        };
                        let sum = |right: &dyn Fn(usize) -> f32| {
                            (0..depth).fold(start, |sum, k| {
                                sum + f64::from(left[row * left_stride + k]) * f64::from(right(k * cols + col))
                            })
                        };
                        let expected = sum(&|index| right[index]);
                        assert!((f64::from(single[row * cols + col]) - expected).abs() < 1e-5, "{name}");
                        let expected = sum(&|index| halves[index].to_f32());
                        assert!((f64::from(half[row * cols + col]) - expected).abs() < 1e-5, "{name}");
                        let expected = sum(&|index| f32::from(bytes[index]));
                        assert!((f64::from(byte[row * cols + col]) - expected).abs() < 1e-3, "{name}");
                    }
                }
            }
        }
    });
}

#[test]
fn rounding_to_bytes() {
    each_set(|name, functions| {
        for count in [0, 1, 7, 16, 67] {
            let mut values = numbers(4, count, 3.0);
            // Ties go to even numbers.
            values
                .iter_mut()
                .zip([0.5, 1.5, -2.5])
                .for_each(|(value, tie)| *value = tie / 42.0);
            let mut bytes = vec![99; count];
            // SAFETY: the machine has the instruction set.
            unsafe { (functions.to_i8)(&values, 42.0, &mut bytes) }
            let expected: Vec<i8> = values
                .iter()
                .map(|&value| (value * 42.0).round_ties_even() as i8)
                .collect();
            assert_eq!(bytes, expected, "{name}");
        }
    });
}

#[test]
fn rounding_to_f16() {
    each_set(|name, functions| {
        for count in [0, 1, 15, 16, 67] {
            let values = numbers(4, count, 300.0);
            let mut halves = vec![f16::NAN; count];
            // SAFETY: the machine has the instruction set.
            unsafe { (functions.to_f16)(&values, &mut halves) };
            let expected: Vec<f16> = values.iter().map(|&value| f16::from_f32(value)).collect();
            assert_eq!(halves, expected, "{name}");
        }
    });
}

/// What a bias adds to the score at a position.
fn bias_at(bias: Option<PositionBias>, position: usize) -> f64 {
    bias.map_or(0.0, |bias| f64::from(bias.rule.bias(bias.slope, position)))
}

#[test]
fn softmax_in_blocks_equals_softmax_at_once() {
    each_set(|name, functions| {
        let [rounded, unrounded] = [true, false].map(|rounded| PositionBias {
            slope: 0.3,
            rule: AlibiRule { factor: 0.5, rounded },
            first_position: 0,
        });
        for (softcap, slope) in [
            (None, None),
            (Some(5.0), None),
            (None, Some(rounded)),
            (None, Some(unrounded)),
        ] {
            let scores = numbers(1, 192, 40.0);
            let valid = [5..64, 0..0, 0..37];
            let (mut maximum, mut sum) = (f32::NEG_INFINITY, 0.0);
            let (mut weights, mut shrinks) = (scores.clone(), Vec::new());
            for (index, (block, valid)) in weights.chunks_exact_mut(64).zip(valid.clone()).enumerate() {
                let first_position = 64 * index;
                let bias = slope.map(|slope| PositionBias {
                    first_position,
                    ..slope
                });
                let mut block = SoftmaxBlock {
                    scores: block,
                    valid,
                    softcap,
                    bias,
                    maximum: &mut maximum,
                    sum: &mut sum,
                };
                // SAFETY: the machine has the instruction set.
                shrinks.push(unsafe { (functions.softmax_block)(&mut block) });
            }
            let seen = |index: usize| valid[index / 64].contains(&(index % 64));
            let score = |index: usize| match softcap {
                Some(cap) => f64::from(cap) * (f64::from(scores[index]) / f64::from(cap)).tanh(),
                None => f64::from(scores[index]) + bias_at(slope, index),
            };
            let total: f64 = (0..192)
                .filter(|&index| seen(index))
                .map(|index| score(index).exp())
                .sum();
            for index in 0..192 {
                let shrink: f32 = shrinks[index / 64 + 1..].iter().product();
                let found = f64::from(weights[index] * shrink / sum);
                let expected = if seen(index) { score(index).exp() / total } else { 0.0 };
                assert!(
                    (found - expected).abs() < 3e-6,
                    "{name}: {index}: {found} and {expected}"
                );
            }
        }
    });
}

#[test]
fn activations_and_rotation() {
    each_set(|name, functions| {
        let values = numbers(5, 1003, 30.0);
        let formulas: [(Activation, Formula); 9] = [
            (Activation::Silu, |x| x / (1.0 + (-x).exp())),
            (Activation::GeluTanh, |x| {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh())
            }),
            (Activation::QuickGelu, |x| x / (1.0 + (-1.702 * x).exp())),
            (Activation::Relu, |x| x.max(0.0)),
            (Activation::Sigmoid, |x| 1.0 / (1.0 + (-x).exp())),
            (Activation::Tanh, f64::tanh),
            (Activation::Softplus, |x| x.exp().ln_1p()),
            (Activation::Clamp(1.5), |x| x.clamp(-1.5, 1.5)),
            (Activation::Softcap(7.0), |x| 7.0 * (x / 7.0).tanh()),
        ];
        for (activation, formula) in formulas {
            let mut found = values.clone();
            // SAFETY: the machine has the instruction set.
            unsafe { (functions.activate)(activation, &mut found, None) };
            for (&x, &found) in values.iter().zip(&found) {
                let expected = formula(f64::from(x));
                let tolerance = 5e-7 * f64::from(x.abs()).max(1.0);
                assert!(
                    (f64::from(found) - expected).abs() < tolerance,
                    "{name} {activation:?}({x}) = {found}"
                );
            }
        }
        for (pairs, expected) in [
            (RopePairs::Halves, [0.6 - 3.0 * 0.8, -4.0, 3.0 * 0.6 + 0.8, 2.0, 9.0]),
            (
                RopePairs::Neighbours,
                [0.6 - 2.0 * 0.8, 2.0 * 0.6 + 0.8, -4.0, 3.0, 9.0],
            ),
        ] {
            let mut head = vec![1.0f32, 2.0, 3.0, 4.0, 9.0];
            // SAFETY: the machine has the instruction set.
            unsafe { (functions.rotate_head)(pairs, &mut head, &[0.6, 0.0, 0.8, 1.0]) };
            let close = |(found, expected): (&f32, f32)| (found - expected).abs() < 1e-6;
            assert!(head.iter().zip(expected).all(close), "{name}: {head:?}");
        }
    });
}

#[test]
fn norms_with_all_their_parts() {
    let (values, residual) = (numbers(5, 1003, 30.0), numbers(6, 1003, 8.0));
    let (weight, bias) = (numbers(7, 1003, 1.0), numbers(8, 1003, 2.0));
    each_set(|name, functions| {
        for kind in [NormKind::Rms, NormKind::Layer, NormKind::Identity] {
            for (weight, bias) in [(Some(&weight), Some(&bias)), (Some(&weight), None), (None, None)] {
                let (mut hidden, mut output) = (values.clone(), vec![0.0; 1003]);
                let mut row = NormRow {
                    kind,
                    hidden: &mut hidden,
                    residual: Some((&residual, 0.5)),
                    weight: weight.map(Vec::as_slice),
                    bias: bias.map(Vec::as_slice),
                    epsilon: 1e-5,
                    output: Some(&mut output),
                };
                // SAFETY: the machine has the instruction set.
                unsafe { (functions.norm_row)(&mut row) };
                let sum = |i: usize| f64::from(values[i]) + 0.5 * f64::from(residual[i]);
                let mean = match kind {
                    NormKind::Rms | NormKind::Identity => 0.0,
                    NormKind::Layer => (0..1003).map(sum).sum::<f64>() / 1003.0,
                };
                let square = match kind {
                    NormKind::Identity => 1.0 - 1e-5,
                    _ => (0..1003).map(|i| (sum(i) - mean).powi(2)).sum::<f64>() / 1003.0,
                };
                for i in 0..1003 {
                    let (weight, bias) = (weight.map_or(1.0, |weight| weight[i]), bias.map_or(0.0, |bias| bias[i]));
                    let expected = (sum(i) - mean) / (square + 1e-5).sqrt() * f64::from(weight) + f64::from(bias);
                    // Identity divides nothing, so that large values stay large.
                    let tolerance = match kind {
                        NormKind::Identity => 2e-7 * expected.abs().max(10.0),
                        NormKind::Rms | NormKind::Layer => 2e-6,
                    };
                    assert!((f64::from(output[i]) - expected).abs() < tolerance, "{name} {kind:?}");
                    assert!((f64::from(hidden[i]) - sum(i)).abs() < 1e-5, "{name} {kind:?}");
                }
            }
        }
    });
}
