//! Every instruction set's kernels of layers with a state, against the same sums in f64.

use planish_cpu::Coefficients;
use planish_cpu::vector::{ConvolutionRow, STRIP, ScanRow, StateStep, VectorFunctions, vector_functions};
use planish_format::Isa;
use planish_ops::Activation;

fn sets() -> impl Iterator<Item = (&'static str, &'static VectorFunctions)> {
    Isa::supported().map(|isa| (isa.name(), vector_functions(isa)))
}

/// Values in [-1, 1) that are the same in every run.
fn values(seed: usize, count: usize) -> Vec<f32> {
    let value = |index: usize| ((index * 7919 + seed * 104_729) % 2001) as f32 / 1000.0 - 1.0;
    (0..count).map(value).collect()
}

#[track_caller]
fn close(name: &str, found: &[f32], expected: &[f64]) {
    for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (f64::from(found) - expected).abs() < 3e-6,
            "{name} at {index}: {found} and {expected}"
        );
    }
}

#[test]
fn a_step_of_a_state() {
    for (name, functions) in sets() {
        for (key_dim, corrects) in [(1, false), (7, true), (128, true), (128, false)] {
            let (query, key, value) = (values(1, key_dim), values(2, key_dim), values(3, STRIP));
            let before = values(4, key_dim * STRIP);
            let factors = Coefficients {
                decay: 0.9,
                write: 0.3,
                key: 0.2,
                query: 0.1,
                overlap: 0.7,
                skip: -0.4,
            };
            let (mut state, mut output) = (before.clone(), [0.0; STRIP]);
            // SAFETY: the machine has the instruction set.
            unsafe {
                (functions.step_state)(&mut StateStep {
                    state: &mut state,
                    query: &query,
                    asked: &key,
                    key: &key,
                    decays: None,
                    value: value.as_slice().try_into().unwrap(),
                    corrects,
                    coefficients: factors,
                    output: &mut output,
                });
            }
            let wide = f64::from;
            let read = |by: &[f32], column: usize| -> f64 {
                let rows = before.chunks_exact(STRIP).zip(by);
                rows.map(|(row, &by)| 0.9f32 as f64 * wide(row[column]) * wide(by))
                    .sum()
            };
            let (mut outputs, mut states) = (Vec::new(), vec![0.0; state.len()]);
            for (column, &value) in value.iter().enumerate() {
                let answer = if corrects {
                    0.2f32 as f64 * read(&key, column)
                } else {
                    0.0
                };
                let written = 0.3f32 as f64 * (wide(value) - answer);
                outputs.push(0.1f32 as f64 * read(&query, column) + 0.7 * written - 0.4 * wide(value));
                for (row, &key) in key.iter().enumerate() {
                    let at = row * STRIP + column;
                    states[at] = 0.9f32 as f64 * wide(before[at]) + 0.2f32 as f64 * wide(key) * written;
                }
            }
            close(name, &output, &outputs);
            close(name, &state, &states);
        }
    }
}

#[test]
fn a_row_of_a_scan() {
    for (name, functions) in sets() {
        for (channels, key_dim) in [(1, 1), (33, 16), (64, 5)] {
            let [inputs, steps, step_bias, skip] = [1, 2, 3, 4].map(|seed| values(seed, channels));
            let (key, query, stride) = (values(5, key_dim), values(6, key_dim), channels + 3);
            let rates: Vec<f32> = values(7, key_dim * stride)
                .iter()
                .map(|rate| 3.0 * rate.abs())
                .collect();
            let before = values(8, key_dim * channels);
            let (mut state, mut output) = (before.clone(), vec![0.0; channels]);
            // SAFETY: the machine has the instruction set.
            unsafe {
                (functions.scan_row)(&mut ScanRow {
                    values: &inputs,
                    steps: &steps,
                    step_bias: &step_bias,
                    skip: &skip,
                    key: &key,
                    query: &query,
                    rates: &rates,
                    stride,
                    state: &mut state,
                    output: &mut output,
                });
            }
            let wide = f64::from;
            let (mut outputs, mut states) = (vec![0.0; channels], vec![0.0; state.len()]);
            for channel in 0..channels {
                let step = (wide(steps[channel]) + wide(step_bias[channel])).exp().ln_1p();
                outputs[channel] = wide(skip[channel]) * wide(inputs[channel]);
                for number in 0..key_dim {
                    let at = number * channels + channel;
                    let decay = (-wide(rates[number * stride + channel]) * step).exp();
                    states[at] = decay * wide(before[at]) + wide(key[number]) * step * wide(inputs[channel]);
                    outputs[channel] += wide(query[number]) * states[at];
                }
            }
            close(name, &output, &outputs);
            close(name, &state, &states);
        }
    }
}

#[test]
fn a_row_of_a_convolution() {
    for (name, functions) in sets() {
        for (channels, taps) in [(1, 2), (33, 4), (64, 3)] {
            let [input, input_gate, output_gate, bias] = [1, 2, 3, 4].map(|seed| values(seed, channels));
            let (stride, before) = (channels + 3, values(5, taps * channels));
            let weight = values(6, taps * stride);
            let (mut window, mut output) = (before.clone(), vec![0.0; channels]);
            // SAFETY: the machine has the instruction set.
            unsafe {
                (functions.convolve_row)(&mut ConvolutionRow {
                    input: &input,
                    input_gate: Some(&input_gate),
                    weight: &weight,
                    stride,
                    bias: Some(&bias),
                    activation: Some(Activation::Silu),
                    output_gate: Some(&output_gate),
                    window: &mut window,
                    output: &mut output,
                });
            }
            let wide = f64::from;
            let expected = |channel: usize| {
                let x = |tap: usize| match tap + 1 == taps {
                    true => wide(input[channel]) * wide(input_gate[channel]),
                    false => wide(before[tap * channels + channel]),
                };
                let products = (0..taps).map(|tap| x(tap) * wide(weight[tap * stride + channel]));
                let sum = wide(bias[channel]) + products.sum::<f64>();
                wide(output_gate[channel]) * sum / (1.0 + (-sum).exp())
            };
            close(name, &output, &(0..channels).map(expected).collect::<Vec<_>>());
        }
    }
}
