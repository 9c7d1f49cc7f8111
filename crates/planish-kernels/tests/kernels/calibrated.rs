//! Codes by the inputs of layers: each kernel beside sums in f64, or bit for bit beside planish-format's search.

mod systems;

use planish_format::{FloatType, GroupSearch, Packing};
use planish_kernels::launch::{CodeRows, FactorBlock, Feedback, Launch, PlaceBlocks, RowStep, Square, SquareStep};

use crate::data::{Random, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};

const ROWS: usize = 3;
const COLS: usize = 80;
const GROUP: usize = 16;
const GROUPS: usize = COLS / GROUP;
/// Of a system.
const SIZE: usize = 2 * GROUPS;
const F32: FloatType = FloatType::F32;

fn square(step: SquareStep) -> Square {
    Square {
        step,
        size: COLS as u32,
        group: GROUP as u32,
    }
}

fn feedback(bits: u32, scale: FloatType, first: usize) -> Feedback {
    Feedback {
        packing: Packing::new(bits, GROUP).expect("a packing"),
        scale,
        rows: ROWS as u32,
        cols: COLS as u32,
        first: first as u32,
    }
}

fn rows(step: RowStep) -> CodeRows {
    CodeRows {
        step,
        scale: FloatType::BF16,
        rows: ROWS as u32,
        cols: COLS as u32,
        group: GROUP as u32,
        index: 0,
        first_row: 0,
        ridge: 1e-3,
    }
}

const SQUARE_STEPS: [SquareStep; 8] = [
    SquareStep::Subtract { count: 70 },
    SquareStep::Mean { parts: 3 },
    SquareStep::MeanSymmetric { parts: 3 },
    SquareStep::ReadDiagonal,
    SquareStep::ChangeDiagonal {
        if_zero: 2.0,
        added: 0.5,
    },
    SquareStep::Arrange { added: 0.5 },
    SquareStep::Reverse,
    SquareStep::SumGroups,
];

const ROW_STEPS: [RowStep; 9] = [
    RowStep::Gather,
    RowStep::Errors,
    RowStep::Products,
    RowStep::Centre,
    RowStep::Terms,
    RowStep::Sides,
    RowStep::Solve,
    RowStep::Change,
    RowStep::Keep,
];

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let size = COLS as u32;
    let mut launches = vec![
        FactorBlock { size, first: 64 }.launch(),
        PlaceBlocks { size }.launch(),
        feedback(2, FloatType::BF16, 0).launch(),
        feedback(4, FloatType::F16, 0).launch(),
        feedback(4, FloatType::F16, 0).launch_sweep(),
    ];
    launches.extend(SQUARE_STEPS.map(|step| square(step).launch()));
    launches.extend(ROW_STEPS.map(|step| rows(step).launch()));
    launches
}

fn device() -> Device {
    Device::new(&launches(), Watch::Memory)
}

fn f32s(values: &[f32]) -> Vec<u8> {
    to_bytes(values, F32)
}

fn f64s(values: &[f64]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn read_f64s(bytes: &[u8]) -> Vec<f64> {
    let eight = bytes.as_chunks::<8>().0.iter();
    eight.map(|bytes| f64::from_le_bytes(*bytes)).collect()
}

fn u32s(values: impl IntoIterator<Item = u32>) -> Vec<u8> {
    values.into_iter().flat_map(u32::to_le_bytes).collect()
}

/// As those of inputs: positive definite. // (size, size)
fn squares(random: &mut Random, size: usize) -> Vec<f32> {
    let inputs = random.values(2 * size * size, F32);
    let entry = |row: usize, col: usize| {
        let products = inputs
            .chunks_exact(size)
            .map(|input| f64::from(input[row]) * f64::from(input[col]));
        products.sum::<f64>() as f32
    };
    (0..size * size).map(|at| entry(at / size, at % size)).collect()
}

fn assert_equal(found: &[f32], expected: impl IntoIterator<Item = f32>, what: &str) {
    let expected: Vec<f32> = expected.into_iter().collect();
    assert_eq!(found, expected, "{what}");
}

#[test]
fn blocks_have_factors_and_those_have_inverses() {
    let (device, mut random) = (device(), Random(31));
    let mut values = squares(&mut random, COLS);
    for (first, good) in [(0, true), (64, true), (64, false)] {
        if !good {
            values[70 * COLS + 70] = -1.0;
        }
        let block = FactorBlock {
            size: COLS as u32,
            first: first as u32,
        };
        let mut buffers = [f32s(&values), poison(2 * 64 * 64, F32), vec![0; 4]];
        device.run(&block.launch(), &mut buffers);
        assert_eq!(buffers[2] == [0; 4], good);
        let inverse = &from_bytes(&buffers[1], F32)[first / 64 * 64 * 64..][..64 * 64];
        let count = (COLS - first).min(64);
        // X H X^T = 1.
        for (row, col) in (0..count * count).map(|at| (at / count, at % count)).filter(|_| good) {
            let terms = (0..count * count).map(|at| {
                let (a, b) = (at / count, at % count);
                let middle = f64::from(values[(first + a.max(b)) * COLS + first + a.min(b)]);
                f64::from(inverse[row * 64 + a]) * middle * f64::from(inverse[col * 64 + b])
            });
            let one = if row == col { 1.0 } else { 0.0 };
            assert!((terms.sum::<f64>() - one).abs() < 1e-4, "{row}, {col} of {first}");
        }
    }
    let inverses = random.values(2 * 64 * 64, F32);
    let mut buffers = [f32s(&inverses), f32s(&[0.0; COLS * COLS])];
    device.run(&PlaceBlocks { size: COLS as u32 }.launch(), &mut buffers);
    let expected = (0..COLS * COLS).map(|at| match (at / COLS, at % COLS) {
        (row, col) if row / 64 == col / 64 => inverses[row / 64 * 64 * 64 + row % 64 * 64 + col % 64],
        _ => 0.0,
    });
    assert_equal(&from_bytes(&buffers[1], F32), expected, "blocks");
}

#[test]
fn steps_on_squares_do_what_they_say() {
    let (device, mut random) = (device(), Random(32));
    let mut values = random.values(COLS * COLS, F32);
    values[3 * (COLS + 1)] = 0.0;
    let order: Vec<usize> = (0..COLS).map(|at| (at * 7 + 3) % COLS).collect();
    let run = |step: SquareStep, mut buffers: Vec<Vec<u8>>| {
        device.run(&square(step).launch(), &mut buffers);
        buffers
    };
    let at = |row: usize, col: usize| values[row * COLS + col];
    let all = || (0..COLS * COLS).map(|at| (at / COLS, at % COLS));
    let [subtract, mean, symmetric, read, change, arrange, reverse, sums] = SQUARE_STEPS;

    let found = run(subtract, vec![f32s(&values[..70]), f32s(&values[100..170])]);
    let less = (0..70).map(|at| values[at] - values[at + 100]);
    assert_equal(&from_bytes(&found[0], F32), less, "differences");
    let third = |value: f32| (f64::from(value) / 3.0) as f32;
    let found = run(mean, vec![f32s(&values)]);
    assert_equal(
        &from_bytes(&found[0], F32),
        values.iter().map(|value| third(*value)),
        "means",
    );
    let found = run(symmetric, vec![f32s(&values)]);
    let expected = all().map(|(row, col)| third(at(row.min(col), row.max(col))));
    assert_equal(&from_bytes(&found[0], F32), expected, "symmetric means");
    let found = run(read, vec![f32s(&values), poison(COLS, F32)]);
    assert_equal(
        &from_bytes(&found[1], F32),
        (0..COLS).map(|row| at(row, row)),
        "diagonal",
    );
    let found = run(change, vec![f32s(&values)]);
    let changed = |row: usize, col: usize| match (row == col, at(row, col)) {
        (true, 0.0) => 2.5,
        (true, own) => own + 0.5,
        (false, own) => own,
    };
    assert_equal(
        &from_bytes(&found[0], F32),
        all().map(|(row, col)| changed(row, col)),
        "new diagonal",
    );
    let words = u32s(order.iter().map(|&col| col as u32));
    let found = run(arrange, vec![f32s(&values), words, poison(COLS * COLS, F32)]);
    let arranged = all().map(|(row, col)| match col.cmp(&row) {
        std::cmp::Ordering::Less => at(order[row], order[col]),
        std::cmp::Ordering::Equal => at(order[row], order[row]) + 0.5,
        std::cmp::Ordering::Greater => 0.0,
    });
    assert_equal(&from_bytes(&found[2], F32), arranged, "another order");
    let found = run(reverse, vec![f32s(&values), poison(COLS * COLS, F32)]);
    assert_equal(&from_bytes(&found[1], F32), values.iter().rev().copied(), "reversed");
    let found = read_f64s(&run(sums, vec![f32s(&values), vec![0xff; 8 * GROUPS * GROUPS]])[1]);
    for (index, found) in found.iter().enumerate() {
        let block = (0..GROUP * GROUP).map(|other| {
            let (row, col) = (
                index / GROUPS * GROUP + other / GROUP,
                index % GROUPS * GROUP + other % GROUP,
            );
            f64::from(at(row, col))
        });
        assert!((found - block.sum::<f64>()).abs() < 1e-9, "sums of groups");
    }
}

/// The same search and the same steps after it, group after group, on rows of which the columns have another order.
#[test]
fn feedback_equals_that_of_the_format() {
    let (device, mut random) = (device(), Random(33));
    for (bits, scale, first) in [(2, FloatType::BF16, 0), (4, FloatType::F16, 48)] {
        let problem = feedback(bits, scale, first);
        let left = random.values(ROWS * COLS, F32);
        let weights: Vec<f32> = random.values(COLS, F32).iter().map(|value| value.abs() + 0.1).collect();
        let mut upper = random.values(COLS * COLS, F32);
        (0..COLS).for_each(|col| upper[col * (COLS + 1)] = 1.0 + upper[col * (COLS + 1)].abs());
        // Groups from the last to the first, columns of a group likewise.
        let order: Vec<usize> = (0..COLS).rev().collect();
        let groups = ROWS * GROUPS;
        let mut buffers = [
            f32s(&left),
            f32s(&weights),
            f32s(&upper),
            u32s(order.iter().map(|&col| col as u32)),
            vec![0xff; ROWS * COLS],
            poison(groups, F32),
            poison(groups, F32),
            poison(ROWS * GROUP, F32),
        ];
        device.run(&problem.launch(), &mut buffers);
        let mut search = GroupSearch::new(problem.packing, scale);
        let levels = ((1u32 << bits) - 1) as f32;
        let [scales, biases, errors] = [5, 6, 7].map(|index| from_bytes(&buffers[index], F32));
        for row in 0..ROWS {
            let mut values = left[row * COLS + first..][..GROUP].to_vec();
            let affine = search.find(&values, &weights[first..first + GROUP]);
            let group = row * GROUPS + order[first] / GROUP;
            assert_eq!((scales[group], biases[group]), affine, "{problem:?}, row {row}");
            for at in 0..GROUP {
                let own = &upper[(first + at) * COLS + first..][..GROUP];
                let exact = (values[at] - affine.1) / affine.0;
                let code = exact.clamp(0.0, levels).round_ties_even();
                let error = (values[at] - (code * affine.0 + affine.1)) / own[at];
                assert_eq!(
                    buffers[4][row * COLS + order[first + at]],
                    code as u8,
                    "{problem:?}, row {row}"
                );
                assert_eq!(errors[row * GROUP + at], -error, "{problem:?}, row {row}");
                for (value, upper) in values[at + 1..].iter_mut().zip(&own[at + 1..]) {
                    *value -= error * upper;
                }
            }
        }
    }
}

#[test]
fn a_sweep_takes_the_best_code_in_turn() {
    let (device, mut random) = (device(), Random(34));
    let squares = squares(&mut random, COLS);
    let products: Vec<f32> = random
        .values(ROWS * COLS, F32)
        .iter()
        .map(|value| 300.0 * value)
        .collect();
    let scales: Vec<f32> = random
        .values(ROWS * GROUPS, F32)
        .iter()
        .map(|value| value + 1.5)
        .collect();
    let biases = random.values(ROWS * GROUPS, F32);
    let before: Vec<u8> = (0..ROWS * COLS).map(|_| random.next() as u8 % 16).collect();
    let mut all_changed = 0;
    for first in [0, 64] {
        let problem = feedback(4, FloatType::F16, first);
        let swept = Feedback::SWEPT as usize;
        let mut buffers = [
            before.clone(),
            f32s(&scales),
            f32s(&biases),
            f32s(&squares),
            f32s(&products),
            poison(ROWS * swept, F32),
        ];
        device.run(&problem.launch_sweep(), &mut buffers);
        let changes = from_bytes(&buffers[5], F32);
        let end = (first + swept).min(COLS);
        for row in 0..ROWS {
            let mut own = products[row * COLS..][..COLS].to_vec();
            for col in 0..COLS {
                let group = row * GROUPS + col / GROUP;
                let (scale, bias, at) = (scales[group], biases[group], row * COLS + col);
                if !(first..end).contains(&col) {
                    assert_eq!(buffers[0][at], before[at], "another block");
                    continue;
                }
                let weight = f32::from(before[at]) * scale + bias;
                let exact = (weight - own[col] / squares[col * COLS + col] - bias) / scale;
                let code = exact.clamp(0.0, 15.0).round_ties_even();
                let change = code * scale + bias - weight;
                assert_eq!(buffers[0][at], code as u8, "row {row}, column {col}");
                assert_eq!(changes[row * swept + col - first], change, "row {row}, column {col}");
                all_changed += u32::from(change != 0.0);
                for other in first..end {
                    own[other] += change * squares[col * COLS + other];
                }
            }
        }
    }
    assert!(all_changed > 20);
}

#[test]
fn steps_on_rows_do_what_they_say() {
    let (device, mut random) = (device(), Random(35));
    let run = |step: CodeRows, mut buffers: Vec<Vec<u8>>| {
        device.run(&step.launch(), &mut buffers);
        buffers
    };
    let codes: Vec<u8> = (0..ROWS * COLS).map(|_| random.next() as u8 % 8).collect();
    let (scales, biases) = (random.values(ROWS * GROUPS, F32), random.values(ROWS * GROUPS, F32));
    let (target, products) = (random.values(ROWS * COLS, F32), random.values(ROWS * COLS, F32));
    let all = || (0..ROWS * COLS).map(|at| (at, at / COLS * GROUPS + at % COLS / GROUP));

    let order = u32s((0..COLS as u32).rev());
    let found = run(
        rows(RowStep::Gather),
        vec![f32s(&target), order, poison(ROWS * COLS, F32)],
    );
    let expected = all().map(|(at, _)| target[at / COLS * COLS + COLS - 1 - at % COLS]);
    assert_equal(&from_bytes(&found[2], F32), expected, "another order");
    let held = vec![
        codes.clone(),
        f32s(&scales),
        f32s(&biases),
        f32s(&target),
        poison(ROWS * COLS, F32),
    ];
    let found = run(rows(RowStep::Errors), held);
    let expected = all().map(|(at, group)| f32::from(codes[at]) * scales[group] + biases[group] - target[at]);
    assert_equal(&from_bytes(&found[4], F32), expected, "errors");
    let found = run(
        rows(RowStep::Products),
        vec![f32s(&target), f32s(&products), vec![0xff; 8 * ROWS]],
    );
    for (row, found) in read_f64s(&found[2]).into_iter().enumerate() {
        let own = row * COLS..(row + 1) * COLS;
        let pairs = target[own.clone()].iter().zip(&products[own]);
        let expected: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
        assert!((found - expected).abs() < 1e-12 * COLS as f64, "products of row {row}");
    }
    let found = run(
        rows(RowStep::Centre),
        vec![codes.clone(), poison(ROWS * GROUPS, F32), poison(ROWS * COLS, F32)],
    );
    let means: Vec<f32> = codes
        .chunks_exact(GROUP)
        .map(|codes| codes.iter().map(|code| f32::from(*code)).sum::<f32>() / GROUP as f32)
        .collect();
    assert_equal(&from_bytes(&found[1], F32), means.iter().copied(), "means of codes");
    let expected = all().map(|(at, group)| f32::from(codes[at]) - means[group]);
    assert_equal(&from_bytes(&found[2], F32), expected, "centred codes");

    let tried: Vec<f32> = random.values(2 * ROWS * GROUPS, F32);
    let (new_scales, new_biases) = tried.split_at(ROWS * GROUPS);
    let new_codes: Vec<u8> = codes.iter().map(|code| code ^ 1).collect();
    let found = run(
        rows(RowStep::Keep),
        vec![
            codes.clone(),
            f32s(&scales),
            f32s(&biases),
            f32s(&products),
            f64s(&[2.0, 2.0, 2.0]),
            new_codes.clone(),
            f32s(new_scales),
            f32s(new_biases),
            f32s(&target),
            f64s(&[2.0, 1.0, f64::NAN]),
        ],
    );
    assert_eq!(read_f64s(&found[4]), [2.0, 1.0, 2.0]);
    for (at, group) in all() {
        let better = at / COLS == 1;
        assert_eq!(found[0][at], if better { new_codes[at] } else { codes[at] });
        let kept = from_bytes(&found[1], F32)[group];
        assert_eq!(kept, if better { new_scales[group] } else { scales[group] });
        let kept = from_bytes(&found[3], F32)[at];
        assert_eq!(kept, if better { target[at] } else { products[at] });
    }
}

/// The kernels in which threads of a threadgroup share memory.
#[test]
fn factors_and_sums_have_no_races() {
    let block = FactorBlock {
        size: COLS as u32,
        first: 0,
    };
    let launches = [
        block.launch(),
        rows(RowStep::Products).launch(),
        rows(RowStep::Keep).launch(),
    ];
    let (device, mut random) = (Device::new(&launches, Watch::Races), Random(37));
    let mut buffers = [f32s(&squares(&mut random, COLS)), poison(2 * 64 * 64, F32), vec![0; 4]];
    device.run(&launches[0], &mut buffers);
    assert_eq!(buffers[2], [0; 4]);
    let values = random.values(ROWS * COLS, F32);
    let mut buffers = [f32s(&values), f32s(&values), vec![0xff; 8 * ROWS]];
    device.run(&launches[1], &mut buffers);
    assert!(read_f64s(&buffers[2]).iter().all(|sum| *sum > 0.0));
    let (codes, groups) = (vec![1; ROWS * COLS], f32s(&random.values(ROWS * GROUPS, F32)));
    let held = [codes, groups.clone(), groups, f32s(&values)];
    let mut buffers: Vec<Vec<u8>> = held.iter().cloned().chain([f64s(&[2.0; ROWS])]).collect();
    buffers.extend(held.into_iter().chain([f64s(&[1.0; ROWS])]));
    device.run(&launches[2], &mut buffers);
    assert_eq!(read_f64s(&buffers[4]), [1.0; ROWS]);
}
