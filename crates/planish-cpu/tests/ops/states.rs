//! Operations with a state on the CPU against their scalar references in f64: at odd sizes, with several threads, and with the
//! sequence in passes of every length, which must not matter.

use planish_cpu::{Cpu, CpuOps, CpuTensor, Precision};
use planish_format::FloatType;
use planish_ops::*;

use crate::common::{places, span};

/// Numbers that are the same in every run, about normal with the given spread.
fn random(seed: u64, count: usize, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| spread * (uniform() + uniform() + uniform()) * 2.0)
        .collect()
}

fn ops(threads: usize) -> CpuOps {
    CpuOps::new(Cpu::with_instructions(threads, None).unwrap(), Precision::Exact)
}

/// A tensor that holds `values`, made by an embedding of its rows: the only way that values reach a device.
fn tensor(ops: &CpuOps, rows: usize, cols: usize, values: &[f32]) -> CpuTensor {
    let mut output = ops.tensor(rows, cols).unwrap();
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let table = Matrix::Plain(PlainMatrix {
        rows,
        cols,
        float_type: FloatType::F32,
        data: data.into(),
    });
    ops.embed(Embed {
        table: &table.into(),
        tokens: Tokens::Known(&tokens),
        scale: 1.0,
        output: &mut output,
    });
    output
}

#[track_caller]
fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-3f64, |largest, value| largest.max(value.abs()));
    for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs() / largest;
        assert!(difference < tolerance, "{index}: {found} and {expected}");
    }
}

/// Passes that a sequence of `rows` is cut into.
fn cuts(rows: usize) -> Vec<Vec<usize>> {
    let halves = |first: usize| vec![first, rows - first];
    let mut cuts = vec![vec![rows], vec![1; rows]];
    cuts.extend([1, 2, 3, rows / 2, rows - 1].map(halves));
    cuts
}

/// Sizes of one test of the convolution.
struct Channels {
    rows: usize,
    channels: usize,
    taps: usize,
    bias: bool,
    gates: bool,
    activation: Option<Activation>,
}

fn check_convolution(sizes: &Channels, threads: usize) {
    let &Channels {
        rows,
        channels,
        taps,
        activation,
        ..
    } = sizes;
    let ops = ops(threads);
    let [input, input_gate, output_gate] = [1, 2, 3].map(|seed| random(seed, rows * channels, 1.0));
    let (weight, bias) = (random(4, taps * channels, 0.7), random(5, channels, 0.5));
    let column = |values: &[f32], channel: usize| -> Vec<f32> {
        values.iter().skip(channel).step_by(channels).copied().collect()
    };
    let mut expected = vec![0.0; rows * channels];
    for channel in 0..channels {
        let gate = |gate: &[f32], value: f32| if sizes.gates { gate[channel] * value } else { value };
        let x: Vec<f32> = (0..rows)
            .map(|row| gate(&input_gate[row * channels..], input[row * channels + channel]))
            .collect();
        let added = if sizes.bias { bias[channel] } else { 0.0 };
        let result = convolution_reference(&x, &column(&weight, channel), added, activation);
        for (row, value) in result.into_iter().enumerate() {
            expected[row * channels + channel] = value * f64::from(gate(&output_gate[row * channels..], 1.0));
        }
    }
    let weight = ops.vector(&weight).unwrap();
    let bias = sizes.bias.then(|| ops.vector(&bias).unwrap());
    for passes in cuts(rows) {
        // What is left of another sequence must not matter.
        let mut history = tensor(&ops, taps - 1, channels, &random(6, (taps - 1) * channels, 1.0));
        let (mut found, mut first_position) = (Vec::new(), 0);
        for rows in passes {
            let part = |values: &[f32]| {
                tensor(
                    &ops,
                    rows,
                    channels,
                    &values[first_position * channels..][..rows * channels],
                )
            };
            let gates = sizes.gates.then(|| (part(&input_gate), part(&output_gate)));
            let mut output = ops.tensor(rows, channels).unwrap();
            ops.convolve(Convolution {
                places: places(&span(rows, first_position)),
                input: &part(&input),
                input_gate: gates.as_ref().map(|gates| &gates.0),
                weight: &weight,
                bias: bias.as_ref(),
                activation,
                output_gate: gates.as_ref().map(|gates| &gates.1),
                history: &mut history,
                output: &mut output,
            });
            found.extend_from_slice(ops.read(&output, 0..rows, &mut Vec::new()).unwrap());
            first_position += rows;
        }
        close(&found, &expected, 1e-6);
    }
}

#[test]
fn convolutions_see_only_what_was_before() {
    let sizes = |rows, channels, taps| Channels {
        rows,
        channels,
        taps,
        bias: false,
        gates: false,
        activation: None,
    };
    let cases = [
        sizes(9, 1, 2),
        Channels {
            bias: true,
            ..sizes(5, 33, 3)
        },
        Channels {
            gates: true,
            ..sizes(20, 200, 3)
        },
        Channels {
            bias: true,
            gates: true,
            ..sizes(7, 64, 9)
        },
        Channels {
            bias: true,
            activation: Some(Activation::Silu),
            ..sizes(40, 1000, 4)
        },
    ];
    for case in &cases {
        for threads in [1, 3] {
            check_convolution(case, threads);
        }
    }
}

fn check_scan(rows: usize, channels: usize, key_dim: usize, threads: usize) {
    let ops = ops(threads);
    let [values, steps] = [1, 2].map(|seed| random(seed, rows * channels, 1.0));
    let [keys, queries] = [3, 4].map(|seed| random(seed, rows * key_dim, 1.0));
    let [step_bias, skip] = [5, 6].map(|seed| random(seed, channels, 0.5));
    let rates: Vec<f32> = random(7, key_dim * channels, 2.0)
        .iter()
        .map(|rate| rate.abs())
        .collect();
    let mut expected = vec![0.0; rows * channels];
    for channel in 0..channels {
        let row = |row: usize| ChannelRow {
            query: queries[row * key_dim..][..key_dim].to_vec(),
            key: keys[row * key_dim..][..key_dim].to_vec(),
            value: values[row * channels + channel],
            step: steps[row * channels + channel] + step_bias[channel],
        };
        let all: Vec<ChannelRow> = (0..rows).map(row).collect();
        let own_rates: Vec<f32> = rates.iter().skip(channel).step_by(channels).copied().collect();
        for (row, output) in channel_scan_reference(&all, &own_rates, skip[channel])
            .into_iter()
            .enumerate()
        {
            expected[row * channels + channel] = output;
        }
    }
    let [step_bias, skip, rates] = [step_bias, skip, rates].map(|values| ops.vector(&values).unwrap());
    for passes in cuts(rows) {
        // What is left of another sequence must not matter.
        let mut state = tensor(&ops, key_dim, channels, &random(8, key_dim * channels, 1.0));
        let (mut found, mut first_position) = (Vec::new(), 0);
        for rows in passes {
            let part =
                |values: &[f32], cols: usize| tensor(&ops, rows, cols, &values[first_position * cols..][..rows * cols]);
            let mut output = ops.tensor(rows, channels).unwrap();
            ops.scan_channels(ChannelScan {
                places: places(&span(rows, first_position)),
                values: &part(&values, channels),
                steps: &part(&steps, channels),
                keys: &part(&keys, key_dim),
                queries: &part(&queries, key_dim),
                step_bias: &step_bias,
                rates: &rates,
                skip: &skip,
                state: &mut state,
                output: &mut output,
            });
            found.extend_from_slice(ops.read(&output, 0..rows, &mut Vec::new()).unwrap());
            first_position += rows;
        }
        close(&found, &expected, 1e-5);
    }
}

#[test]
fn scans_of_channels() {
    for (rows, channels, key_dim) in [(5, 1, 1), (33, 70, 5), (12, 200, 16), (1500, 3, 8)] {
        for threads in [1, 3] {
            check_scan(rows, channels, key_dim, threads);
        }
    }
}

fn check_recurrence(shape: RecurrenceShape, rows: usize, (delta, of_keys): (bool, bool), threads: usize) {
    let ops = ops(threads);
    let RecurrenceShape {
        heads,
        key_dim,
        value_dim,
        ..
    } = shape;
    let cols = shape.cols();
    let inputs = random(1, rows * cols, 1.0);
    // Steps of a head.
    let count = if of_keys { key_dim } else { 1 };
    let (steps, beta) = (random(2, rows * heads * count, 2.0), random(3, rows * heads, 2.0));
    let (step_bias, skip) = (random(4, heads * count, 0.5), random(5, heads, 0.5));
    let rates: Vec<f32> = (0..heads).map(|head| 0.02 + head as f32).collect();
    let (scale, limits) = (0.8, (0.1, 1.5));
    let mut expected = vec![0.0; rows * heads * value_dim];
    for head in 0..heads {
        let (query, key, value) = shape.starts(head);
        let row = |row: usize| {
            let part = |first: usize, count: usize| inputs[row * cols + first..][..count].to_vec();
            RecurrenceRow {
                query: part(query, key_dim),
                key: part(key, key_dim),
                value: part(value, value_dim),
                steps: (0..count)
                    .map(|index| scale * steps[(row * heads + head) * count + index] + step_bias[head * count + index])
                    .collect(),
                strength: delta.then(|| beta[row * heads + head]),
            }
        };
        let all: Vec<RecurrenceRow> = (0..rows).map(row).collect();
        let skip = if delta { 0.0 } else { skip[head] };
        let result = recurrence_reference(&all, rates[head], skip, limits);
        for (row, values) in result.chunks_exact(value_dim).enumerate() {
            expected[(row * heads + head) * value_dim..][..value_dim].copy_from_slice(values);
        }
    }
    let [step_bias, skip, rates] = [step_bias, skip, rates].map(|values| ops.vector(&values).unwrap());
    for passes in cuts(rows) {
        let (state_rows, state_cols) = shape.state();
        // What is left of another sequence must not matter.
        let mut state = tensor(&ops, state_rows, state_cols, &random(6, state_rows * state_cols, 1.0));
        let (mut found, mut first_position) = (Vec::new(), 0);
        for rows in passes {
            let part =
                |values: &[f32], cols: usize| tensor(&ops, rows, cols, &values[first_position * cols..][..rows * cols]);
            let beta = part(&beta, heads);
            let mut output = ops.tensor(rows, heads * value_dim).unwrap();
            ops.recur(Recurrence {
                places: places(&span(rows, first_position)),
                shape,
                inputs: &part(&inputs, cols),
                steps: Steps {
                    inputs: &part(&steps, heads * count),
                    scale,
                    bias: &step_bias,
                    limits,
                    rates: &rates,
                },
                rule: match delta {
                    true => Rule::Delta { beta: &beta },
                    false => Rule::Scan { skip: &skip },
                },
                state: &mut state,
                output: &mut output,
            });
            found.extend_from_slice(ops.read(&output, 0..rows, &mut Vec::new()).unwrap());
            first_position += rows;
        }
        close(&found, &expected, 1e-5);
    }
}

#[test]
fn recurrences_of_every_shape() {
    let shape = |heads, groups, key_dim, value_dim| {
        [Order::QueryKeyValue, Order::ValueKeyQuery].map(|order| RecurrenceShape {
            heads,
            groups,
            key_dim,
            value_dim,
            order,
        })
    };
    let shapes = [
        (shape(1, 1, 1, 1), 5),
        (shape(4, 2, 12, 20), 33),
        (shape(6, 1, 128, 64), 70),
        (shape(3, 3, 17, 33), 12),
    ];
    for (shapes, rows) in shapes {
        for shape in shapes {
            for rule in [(true, false), (true, true), (false, false)] {
                for threads in [1, 3] {
                    check_recurrence(shape, rows, rule, threads);
                }
            }
        }
    }
}

#[test]
fn a_long_recurrence_stays_finite_and_right() {
    let shape = RecurrenceShape {
        heads: 2,
        groups: 1,
        key_dim: 16,
        value_dim: 8,
        order: Order::QueryKeyValue,
    };
    check_recurrence(shape, 3000, (true, false), 1);
    check_recurrence(shape, 3000, (true, true), 1);
    check_recurrence(shape, 3000, (false, false), 1);
}
