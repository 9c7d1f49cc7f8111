//! Few rows through packed and plain weights.

use planish_format::{FloatType, Packing};
use planish_kernels::launch::{Launch, Matvec, Repeat, WeightKind};
use planish_ops::linear_reference;

use crate::data::{Random, TYPES, WIDTHS, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};

/// A weight with its values in f32.
pub struct TestWeight {
    pub buffers: [Vec<u8>; 3],
    pub values: Vec<f32>, // (rows, cols)
}

impl TestWeight {
    pub fn new(random: &mut Random, kind: WeightKind, rows: usize, cols: usize) -> TestWeight {
        let Some(packing) = kind.packing else {
            let values = random.values(rows * cols, kind.float_type);
            let buffers = [to_bytes(&values, kind.float_type), vec![0; 16], vec![0; 16]];
            return TestWeight { buffers, values };
        };
        let matrix = random.packed(rows, cols, packing, kind.float_type);
        let mut values = vec![0.0; rows * cols];
        for (row, values) in values.chunks_exact_mut(cols).enumerate() {
            matrix.dequantize_row(row, values);
        }
        let buffers = [matrix.codes.to_vec(), matrix.scales.to_vec(), matrix.biases.to_vec()];
        TestWeight { buffers, values }
    }
}

/// Every width and type; groups of 8 to 128; rows that end within 32 codes.
pub fn weight_cases() -> Vec<(WeightKind, usize)> {
    let mut cases = Vec::new();
    for (index, bits) in WIDTHS.into_iter().enumerate() {
        let float_type = TYPES[index % 3];
        for (group, cols) in [(64, 192), (8, 160), (32, 1056 + 32), (24, 96), (128, 256)] {
            let kind = |float_type| WeightKind {
                packing: Packing::new(bits, group),
                float_type,
            };
            cases.push((kind(float_type), cols));
        }
        // A row of whole words that is not a multiple of 32 codes.
        if bits.is_multiple_of(4) {
            let packing = Packing::new(bits, 8);
            cases.push((WeightKind { packing, float_type }, 104));
        }
    }
    for float_type in TYPES {
        let packing = None;
        for cols in [33, 40, 256, 1101] {
            cases.push((WeightKind { packing, float_type }, cols));
        }
    }
    cases
}

fn problems() -> Vec<Matvec> {
    let mut problems = Vec::new();
    for (index, (weight, cols)) in weight_cases().into_iter().enumerate() {
        for (turn, (rows, inputs)) in [(7, 1), (1, 3), (13, 2), (9, 9)].into_iter().enumerate() {
            // Few programs: types and batches take turns.
            if (index + turn) % 2 == 0 || inputs == 1 {
                problems.push(Matvec {
                    weight,
                    value: TYPES[(index + turn) % 3],
                    output: TYPES[(index + turn + index / 9 % 2) % 3],
                    rows,
                    cols: cols as u32,
                    inputs,
                    added: turn % 2 == 0,
                    experts: None,
                });
            }
        }
    }
    let packing = Packing::new(4, 32);
    for (repeat, value) in [(1, FloatType::F32), (3, FloatType::BF16)] {
        problems.push(Matvec {
            weight: WeightKind {
                packing,
                float_type: FloatType::BF16,
            },
            value,
            output: value,
            rows: 10,
            cols: 64,
            inputs: 6,
            added: false,
            experts: Some(Repeat(repeat)),
        });
    }
    problems
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(Matvec::launch).collect()
}

fn check(device: &Device, random: &mut Random, problem: &Matvec) {
    const EXPERTS: usize = 5;
    let (rows, cols, inputs) = (problem.rows as usize, problem.cols as usize, problem.inputs as usize);
    let (stack, repeat) = problem
        .experts
        .map_or((1, 1), |Repeat(repeat)| (EXPERTS, repeat as usize));
    let weight = TestWeight::new(random, problem.weight, stack * rows, cols);
    let input = random.values(inputs / repeat * cols, problem.value);
    let added = random.values(rows, FloatType::F32);
    let experts: Vec<u32> = (0..inputs).map(|_| random.next() as u32 % stack as u32).collect();

    let [codes, scales, biases] = weight.buffers;
    let mut buffers = [
        codes,
        scales,
        biases,
        to_bytes(&input, problem.value),
        to_bytes(&added, FloatType::F32),
        experts.iter().flat_map(|expert| expert.to_le_bytes()).collect(),
        poison(inputs * rows, problem.output),
    ];
    device.run(&problem.launch(), &mut buffers);

    let mut expected = Vec::new();
    for (index, &expert) in experts.iter().enumerate() {
        let weight = &weight.values[expert as usize * rows * cols..][..rows * cols];
        let input = &input[index / repeat * cols..][..cols];
        expected.extend(linear_reference(input, weight, problem.added.then_some(&added[..])));
    }
    assert_close(
        &from_bytes(&buffers[6], problem.output),
        &expected,
        problem.output,
        problem,
    );
}

fn check_all(watch: Watch, problems: &[Matvec]) {
    let launches: Vec<Launch> = problems.iter().map(Matvec::launch).collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(1);
    problems.iter().for_each(|problem| check(&device, &mut random, problem));
}

#[test]
fn matvec_equals_the_reference() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn matvec_has_no_races() {
    let problems: Vec<Matvec> = problems().into_iter().step_by(17).collect();
    check_all(Watch::Races, &problems);
}
