//! Convolutions and recurrences with a state: two sequences, one of them in two passes, the other beside its second.

use std::ops::Range;

use planish_format::FloatType;
use planish_kernels::launch::{Convolve, Launch, Recur, ScanChannels};
use planish_ops::{
    Activation, ChannelRow, Order, RecurrenceRow, RecurrenceShape, channel_scan_reference, convolution_reference,
    recurrence_reference,
};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::places::bytes_of;

/// Rows of the two sequences, and of all.
const SEQUENCES: [Range<usize>; 2] = [0..7, 7..11];
const ROWS: usize = 11;
const SLOTS: usize = 3;

/// Rows of a sequence in one pass.
struct Piece {
    slot: usize,
    rows: Range<usize>,
    first_position: usize,
}

const PASSES: [&[Piece]; 2] = [
    &[Piece {
        slot: 2,
        rows: 0..2,
        first_position: 0,
    }],
    &[
        Piece {
            slot: 0,
            rows: 7..11,
            first_position: 0,
        },
        Piece {
            slot: 2,
            rows: 2..7,
            first_position: 2,
        },
    ],
];

/// The rows of a pass, as bytes.
fn part(values: &[f32], cols: usize, pass: &[Piece], float_type: FloatType) -> Vec<u8> {
    let rows = pass
        .iter()
        .flat_map(|piece| &values[piece.rows.start * cols..piece.rows.end * cols]);
    to_bytes(&rows.copied().collect::<Vec<f32>>(), float_type)
}

/// Slot, first row, rows and first position of each piece.
fn spans(pass: &[Piece]) -> Vec<u8> {
    let mut first_row = 0;
    let words = pass.iter().flat_map(|piece| {
        let span = [piece.slot, first_row, piece.rows.len(), piece.first_position];
        first_row += piece.rows.len();
        span.map(|word| word as u32)
    });
    bytes_of(&words.collect::<Vec<u32>>())
}

/// Puts the rows that a pass made among all.
fn collect(found: &mut [f32], made: &[f32], cols: usize, pass: &[Piece]) {
    let mut made = made.chunks_exact(cols);
    for row in pass.iter().flat_map(|piece| piece.rows.clone()) {
        found[row * cols..][..cols].copy_from_slice(made.next().expect("a row for each"));
    }
}

fn convolutions() -> Vec<Convolve> {
    let sizes = [(1, 2, false), (130, 4, true), (64, 3, false), (33, 9, true)];
    let problem = |(index, (channels, taps, biased)): (usize, (u32, u32, bool))| Convolve {
        value: TYPES[index % 3],
        spans: 0,
        channels,
        taps,
        input_gated: index % 2 == 0,
        biased,
        silu: biased,
        output_gated: index >= 2,
    };
    sizes.into_iter().enumerate().map(problem).collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let convolutions = convolutions().into_iter().map(|problem| problem.launch());
    let recurrences = recurrences().into_iter().map(|problem| problem.launch());
    let scans = scans().into_iter().map(|problem| problem.launch());
    convolutions.chain(recurrences).chain(scans).collect()
}

#[test]
fn convolutions_equal_the_formula() {
    let problems = convolutions();
    let launches: Vec<Launch> = problems.iter().map(Convolve::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(5);
    for problem in &problems {
        let (channels, taps, value) = (problem.channels as usize, problem.taps as usize, problem.value);
        let [input, input_gate, output_gate] = [(); 3].map(|()| random.values(ROWS * channels, value));
        let weight = random.values(taps * channels, FloatType::F32);
        let bias = random.values(channels, FloatType::F32);
        let mut expected = vec![0.0; ROWS * channels];
        for channel in 0..channels {
            let at = |row: usize| row * channels + channel;
            let gate = |gated: bool, gate: &[f32], row: usize| if gated { gate[at(row)] } else { 1.0 };
            let x: Vec<f32> = (0..ROWS)
                .map(|row| input[at(row)] * gate(problem.input_gated, &input_gate, row))
                .collect();
            let weights: Vec<f32> = (0..taps).map(|tap| weight[tap * channels + channel]).collect();
            let added = if problem.biased { bias[channel] } else { 0.0 };
            let activation = problem.silu.then_some(Activation::Silu);
            for rows in SEQUENCES {
                let sums = convolution_reference(&x[rows.clone()], &weights, added, activation);
                for (row, sum) in rows.zip(sums) {
                    expected[at(row)] = sum * f64::from(gate(problem.output_gated, &output_gate, row));
                }
            }
        }
        let mut history = poison(SLOTS * (taps - 1) * channels, FloatType::F32);
        let mut found = vec![f32::NAN; ROWS * channels];
        for pass in PASSES {
            let part = |values: &[f32]| part(values, channels, pass, value);
            let mut buffers = [
                part(&input),
                part(&input_gate),
                to_bytes(&weight, FloatType::F32),
                to_bytes(&bias, FloatType::F32),
                part(&output_gate),
                spans(pass),
                history,
                poison(part(&input).len() / value.size_bytes(), value),
            ];
            let launch = Convolve {
                spans: pass.len() as u32,
                ..*problem
            };
            device.run(&launch.launch(), &mut buffers);
            collect(&mut found, &from_bytes(&buffers[7], value), channels, pass);
            history = buffers[6].clone();
        }
        assert_close(&found, &expected, value, problem);
    }
}

fn recurrences() -> Vec<Recur> {
    let shapes = [(1, 1, 1, 1), (4, 2, 12, 20), (2, 1, 130, 33), (3, 3, 16, 64)];
    let mut problems = Vec::new();
    for (index, (heads, groups, key_dim, value_dim)) in shapes.into_iter().enumerate() {
        for (delta, steps_of_keys, order) in [
            (true, false, Order::QueryKeyValue),
            (true, true, Order::QueryKeyValue),
            (false, false, Order::ValueKeyQuery),
        ] {
            problems.push(Recur {
                value: TYPES[index % 3],
                spans: 0,
                shape: RecurrenceShape {
                    heads,
                    groups,
                    key_dim,
                    value_dim,
                    order,
                },
                steps_of_keys,
                delta,
                step_scale: 0.75,
                limits: (0.25, 1.25),
            });
        }
    }
    problems
}

/// What a recurrence takes in.
struct Given {
    inputs: Vec<f32>,    // (rows, cols)
    steps: Vec<f32>,     // (rows, heads), or (rows, heads * key_dim)
    beta: Vec<f32>,      // (rows, heads)
    step_bias: Vec<f32>, // (heads), or (heads * key_dim)
    rates: Vec<f32>,     // (heads)
    skip: Vec<f32>,      // (heads)
}

/// Steps of a head.
fn step_count(problem: &Recur) -> usize {
    if problem.steps_of_keys {
        problem.shape.key_dim
    } else {
        1
    }
}

/// (rows, heads * value_dim)
fn expected(problem: &Recur, given: &Given) -> Vec<f64> {
    let shape = problem.shape;
    let (heads, cols, count) = (shape.heads, shape.cols(), step_count(problem));
    let mut expected = vec![0.0; ROWS * heads * shape.value_dim];
    for head in 0..heads {
        let (query, key, value) = shape.starts(head);
        let row = |row: usize| {
            let part = |first: usize, count: usize| given.inputs[row * cols + first..][..count].to_vec();
            RecurrenceRow {
                query: part(query, shape.key_dim),
                key: part(key, shape.key_dim),
                value: part(value, shape.value_dim),
                steps: (0..count)
                    .map(|index| {
                        let (at, bias) = ((row * heads + head) * count + index, head * count + index);
                        problem.step_scale * given.steps[at] + given.step_bias[bias]
                    })
                    .collect(),
                strength: problem.delta.then(|| given.beta[row * heads + head]),
            }
        };
        let skip = if problem.delta { 0.0 } else { given.skip[head] };
        for rows in SEQUENCES {
            let given_rows: Vec<RecurrenceRow> = rows.clone().map(row).collect();
            let outputs = recurrence_reference(&given_rows, given.rates[head], skip, problem.limits);
            for (row, outputs) in rows.zip(outputs.chunks_exact(shape.value_dim)) {
                expected[(row * heads + head) * shape.value_dim..][..shape.value_dim].copy_from_slice(outputs);
            }
        }
    }
    expected
}

#[test]
fn recurrences_equal_the_formula() {
    let problems = recurrences();
    let launches: Vec<Launch> = problems.iter().map(Recur::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(6);
    for problem in &problems {
        let (shape, value) = (problem.shape, problem.value);
        let (heads, count) = (shape.heads, step_count(problem));
        let given = Given {
            inputs: random.values(ROWS * shape.cols(), value),
            steps: random.values(ROWS * heads * count, value),
            beta: random.values(ROWS * heads, value),
            step_bias: random.values(heads * count, FloatType::F32),
            rates: random.values(heads, FloatType::F32).into_iter().map(f32::abs).collect(),
            skip: random.values(heads, FloatType::F32),
        };
        let f32_bytes = |values: &[f32]| to_bytes(values, FloatType::F32);
        let (state_rows, state_cols) = shape.state();
        let mut state = poison(SLOTS * state_rows * state_cols, FloatType::F32);
        let width = heads * shape.value_dim;
        let mut found = vec![f32::NAN; ROWS * width];
        for pass in PASSES {
            let part = |values: &[f32], cols: usize| part(values, cols, pass, value);
            let mut buffers = [
                part(&given.inputs, shape.cols()),
                part(&given.steps, heads * count),
                f32_bytes(&given.step_bias),
                f32_bytes(&given.rates),
                part(&given.beta, heads),
                f32_bytes(&given.skip),
                spans(pass),
                state,
                poison(pass.iter().map(|piece| piece.rows.len() * width).sum(), value),
            ];
            let launch = Recur {
                spans: pass.len() as u32,
                ..*problem
            };
            device.run(&launch.launch(), &mut buffers);
            collect(&mut found, &from_bytes(&buffers[8], value), width, pass);
            state = buffers[7].clone();
        }
        assert_close(&found, &expected(problem, &given), value, problem);
    }
}

fn scans() -> Vec<ScanChannels> {
    let sizes = [(1, 1), (130, 16), (33, 5)];
    let problem = |(index, (channels, key_dim)): (usize, (u32, u32))| ScanChannels {
        value: TYPES[index % 3],
        spans: 0,
        channels,
        key_dim,
    };
    sizes.into_iter().enumerate().map(problem).collect()
}

#[test]
fn scans_of_channels_equal_the_formula() {
    let problems = scans();
    let launches: Vec<Launch> = problems.iter().map(ScanChannels::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(7);
    for problem in &problems {
        let (channels, key_dim, value) = (problem.channels as usize, problem.key_dim as usize, problem.value);
        let [values, steps] = [(); 2].map(|()| random.values(ROWS * channels, value));
        let [keys, queries] = [(); 2].map(|()| random.values(ROWS * key_dim, value));
        let [step_bias, skip] = [(); 2].map(|()| random.values(channels, FloatType::F32));
        let rates = random.values(key_dim * channels, FloatType::F32);
        let rates: Vec<f32> = rates.into_iter().map(f32::abs).collect();
        let mut expected = vec![0.0; ROWS * channels];
        for channel in 0..channels {
            let row = |row: usize| ChannelRow {
                query: queries[row * key_dim..][..key_dim].to_vec(),
                key: keys[row * key_dim..][..key_dim].to_vec(),
                value: values[row * channels + channel],
                step: steps[row * channels + channel] + step_bias[channel],
            };
            let own_rates: Vec<f32> = rates.iter().skip(channel).step_by(channels).copied().collect();
            for rows in SEQUENCES {
                let given: Vec<ChannelRow> = rows.clone().map(row).collect();
                for (row, output) in rows.zip(channel_scan_reference(&given, &own_rates, skip[channel])) {
                    expected[row * channels + channel] = output;
                }
            }
        }
        let f32_bytes = |values: &[f32]| to_bytes(values, FloatType::F32);
        let mut state = poison(SLOTS * key_dim * channels, FloatType::F32);
        let mut found = vec![f32::NAN; ROWS * channels];
        for pass in PASSES {
            let part = |values: &[f32], cols: usize| part(values, cols, pass, value);
            let mut buffers = [
                part(&values, channels),
                part(&steps, channels),
                part(&keys, key_dim),
                part(&queries, key_dim),
                f32_bytes(&step_bias),
                f32_bytes(&rates),
                f32_bytes(&skip),
                spans(pass),
                state,
                poison(pass.iter().map(|piece| piece.rows.len() * channels).sum(), value),
            ];
            let launch = ScanChannels {
                spans: pass.len() as u32,
                ..*problem
            };
            device.run(&launch.launch(), &mut buffers);
            collect(&mut found, &from_bytes(&buffers[9], value), channels, pass);
            state = buffers[8].clone();
        }
        assert_close(&found, &expected, value, problem);
    }
}
