//! Every operation on the CPU against its scalar reference in f64, at odd sizes and with several threads.

use crate::common::{close, ops, places, plain, random, read, span, tensor};
use planish_cpu::{CpuMatrix, Precision};
use planish_ops::*;

#[test]
fn embedding_scales_the_rows_it_picks() {
    let ops = ops(2, Precision::Exact);
    let table = random(1, 7 * 5, 1.0);
    let mut output = ops.tensor(4, 5).unwrap();
    ops.embed(Embed {
        table: &plain(7, 5, &table).into(),
        tokens: Tokens::Known(&[6, 0, 6]),
        scale: 2.0,
        output: &mut output,
    });
    let expected: Vec<f64> = [6, 0, 6]
        .iter()
        .flat_map(|&row| &table[row * 5..][..5])
        .map(|&value| 2.0 * f64::from(value))
        .collect();
    close(&read(&ops, &output, 3), &expected, 1e-7);
}

/// The norm of every `width` values, with weight and bias that repeat.
fn expected_norm(kind: NormKind, width: usize, hidden: &[f32], (weight, bias): (&[f32], &[f32])) -> Vec<f64> {
    let normalized = hidden
        .chunks_exact(width)
        .flat_map(|row| norm_reference(kind, row, 1e-5));
    let affine = weight.iter().zip(bias).cycle();
    normalized
        .zip(affine)
        .map(|(value, (&weight, &bias))| value * f64::from(weight) + f64::from(bias))
        .collect()
}

#[test]
fn norms_add_the_residual_first() {
    for (rows, cols) in [(1, 8), (3, 33), (70, 576), (2, 4096)] {
        for kind in [NormKind::Rms, NormKind::Layer, NormKind::Identity] {
            let ops = ops(3, Precision::Exact);
            let (hidden, residual) = (random(1, rows * cols, 1.0), random(2, rows * cols, 0.5));
            let (weight, bias) = (random(3, cols, 1.0), random(4, cols, 1.0));
            let mut in_place = tensor(&ops, rows, cols, &hidden);
            let delta = tensor(&ops, rows, cols, &residual);
            let (factors, terms) = (ops.vector(&weight).unwrap(), ops.vector(&bias).unwrap());
            let mut output = ops.tensor(rows, cols).unwrap();
            ops.norm(Norm {
                kind,
                rows: 0..rows,
                width: cols,
                hidden: &mut in_place,
                residual: Some(Residual {
                    tensor: &delta,
                    factor: 0.25,
                }),
                weight: Some(&factors),
                bias: Some(&terms),
                epsilon: 1e-5,
                output: Some(&mut output),
            });
            let sums: Vec<f32> = hidden.iter().zip(&residual).map(|(a, b)| a + 0.25 * b).collect();
            let expected = expected_norm(kind, cols, &sums, (&weight, &bias));
            close(&read(&ops, &output, rows), &expected, 2e-6);
            assert_eq!(read(&ops, &in_place, rows), sums);
            // The last row alone, over itself, without weight and bias.
            let last = rows - 1..rows;
            ops.norm(Norm {
                kind,
                rows: last.clone(),
                width: cols,
                hidden: &mut in_place,
                residual: None,
                weight: None,
                bias: None,
                epsilon: 1e-5,
                output: None,
            });
            let found = &read(&ops, &in_place, rows)[last.start * cols..];
            close(found, &norm_reference(kind, &sums[last.start * cols..], 1e-5), 2e-6);
        }
    }
}

#[test]
fn norms_of_heads_are_norms_of_short_rows() {
    // One weight for all heads, one for each head.
    for size in [24, 4 * 24] {
        let ops = ops(2, Precision::Exact);
        let (hidden, weight) = (random(1, 3 * 4 * 24, 1.0), random(2, size, 1.0));
        let mut heads = tensor(&ops, 3, 4 * 24, &hidden);
        let weights = ops.vector(&weight).unwrap();
        ops.norm(Norm {
            kind: NormKind::Rms,
            rows: 0..3,
            width: 24,
            hidden: &mut heads,
            residual: None,
            weight: Some(&weights),
            bias: None,
            epsilon: 1e-5,
            output: None,
        });
        let expected = expected_norm(NormKind::Rms, 24, &hidden, (&weight, &vec![0.0; size]));
        close(&read(&ops, &heads, 3), &expected, 2e-6);
    }
}

#[test]
fn addition_scales_what_it_adds() {
    for (rows, cols) in [(1, 5), (40, 1023)] {
        let ops = ops(3, Precision::Exact);
        let (before, more) = (random(1, rows * cols, 1.0), random(2, rows * cols, 1.0));
        let mut target = tensor(&ops, rows, cols, &before);
        ops.add(Add {
            rows,
            target: &mut target,
            source: &tensor(&ops, rows, cols, &more),
            factor: -0.5,
        });
        let pairs = before.iter().zip(&more);
        let expected: Vec<f64> = pairs.map(|(&a, &b)| f64::from(a) - 0.5 * f64::from(b)).collect();
        close(&read(&ops, &target, rows), &expected, 1e-7);
    }
}

#[test]
fn linear_layers_share_an_input_and_add_their_biases() {
    let ops = ops(2, Precision::Exact);
    let (rows, cols) = (5, 40);
    let input = random(1, rows * cols, 1.0);
    let sizes = [24, 7, 33];
    let weights = sizes.map(|size| random(size as u64, size * cols, 0.2));
    let bias = random(9, 7, 1.0);
    let on_device = [0, 1, 2].map(|index| CpuMatrix::from(plain(sizes[index], cols, &weights[index])));
    let mut outputs = sizes.map(|size| ops.tensor(rows, size).unwrap());
    let [first, second, third] = &mut outputs;
    ops.linear(Linear {
        rows,
        input: &tensor(&ops, rows, cols, &input),
        weights: &[&on_device[0], &on_device[1], &on_device[2]],
        biases: &[None, Some(&ops.vector(&bias).unwrap()), None],
        outputs: &mut [first, second, third],
    });
    for index in 0..3 {
        let bias = (index == 1).then_some(bias.as_slice());
        let row = |row: &[f32]| linear_reference(row, &weights[index], bias);
        let expected: Vec<f64> = input.chunks_exact(cols).flat_map(row).collect();
        close(&read(&ops, &outputs[index], rows), &expected, 2e-6);
    }
}

#[test]
fn rotation_leaves_the_rest_of_a_head() {
    for (rows, heads, head_dim, rotated) in [(1, 9, 64, 64), (40, 3, 30, 12), (600, 2, 128, 128)] {
        let ops = ops(2, Precision::Exact);
        let values = random(1, rows * heads * head_dim, 1.0);
        let frequencies: Vec<f32> = (0..rotated / 2)
            .map(|i| 1e4f32.powf(-2.0 * i as f32 / rotated as f32))
            .collect();
        let mut angles = ops.tensor(rows, rotated).unwrap();
        let (factor, first_position) = (1.1, 1000);
        let output = &mut angles;
        ops.rope_angles(RopeAngles {
            frequencies: &frequencies,
            factor,
            places: places(&span(rows, first_position)),
            output,
        });
        for pairs in [RopePairs::Halves, RopePairs::Neighbours] {
            let mut on_device = tensor(&ops, rows, heads * head_dim, &values);
            ops.rope(Rope {
                rows,
                heads: &mut on_device,
                head_dim,
                angles: &angles,
                pairs,
            });
            let head = |(index, head): (usize, &[f32])| {
                let mut head = head.to_vec();
                head[..rotated].iter_mut().for_each(|value| *value *= factor);
                rope_reference(&head, pairs, &frequencies, first_position + index / heads)
            };
            let expected: Vec<f64> = values.chunks_exact(head_dim).enumerate().flat_map(head).collect();
            close(&read(&ops, &on_device, rows), &expected, 2e-6);
        }
    }
}

#[test]
fn activations_multiply_by_up() {
    let activations = [
        Activation::Silu,
        Activation::Gelu,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Relu,
        Activation::Relu2,
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Softcap(2.5),
        Activation::Xielu(Xielu {
            positive: 0.7,
            negative: 1.1,
            slope: 0.5,
            limit: -1e-6,
        }),
        Activation::ClampedSwiglu {
            slope: 1.702,
            limit: 1.5,
        },
    ];
    for activation in activations {
        let ops = ops(2, Precision::Exact);
        let (rows, cols) = (13, 1543);
        let (gate, up) = (random(1, rows * cols, 6.0), random(2, rows * cols, 1.0));
        let other = tensor(&ops, rows, cols, &up);
        for up_tensor in [Some(&other), None] {
            let mut on_device = tensor(&ops, rows, cols, &gate);
            ops.gate(Gate {
                rows,
                activation,
                gate: &mut on_device,
                up: up_tensor,
            });
            let alone = match activation {
                Activation::ClampedSwiglu { .. } => 0.0, // to which it adds 1
                _ => 1.0,
            };
            let factor = |up: f32| if up_tensor.is_some() { up } else { alone };
            let expected: Vec<f64> = gate
                .iter()
                .zip(&up)
                .map(|(&gate, &up)| gate_reference(activation, gate, factor(up)))
                .collect();
            close(&read(&ops, &on_device, rows), &expected, 1e-6);
        }
    }
}
