//! Products for other libraries: values of 16 bits, a bias, and the way back, on every instruction set.

use half::{bf16, f16};
use planish_cpu::{Backward, Cpu, CpuMatrix, Floats, FloatsMut, Interleaved, Linear, Precision};
use planish_format::FloatType;
use planish_ops::PlainMatrix;

use crate::case::{
    BASE, Case, FLOAT_TYPES, Random, assert_close, every_set, input, multiply, packed, reference, stored, weight,
};

/// Widths, groups and shapes: rows that end within a block of 16 and a chunk, groups within and beyond a step of columns.
const CASES: [Case; 6] = [
    BASE,
    Case { rows: 96, ..BASE },
    Case {
        bits: 8,
        group: 32,
        rows: 64,
        cols: 96,
        ..BASE
    },
    Case {
        bits: 3,
        group: 16,
        rows: 41,
        cols: 96,
        ..BASE
    },
    Case {
        bits: 2,
        group: 128,
        rows: 176,
        cols: 384,
        float_type: FloatType::F16,
        ..BASE
    },
    Case {
        bits: 6,
        group: 64,
        rows: 1,
        float_type: FloatType::F32,
        ..BASE
    },
];

/// Types of x, and of the products and biases.
const TYPES: [(FloatType, FloatType); 4] = [
    (FloatType::BF16, FloatType::BF16),
    (FloatType::F16, FloatType::F16),
    (FloatType::F32, FloatType::BF16),
    (FloatType::F16, FloatType::F32),
];

/// As stored, value by value.
fn encoded(values: &[f32], float_type: FloatType) -> Vec<u8> {
    let encode = |value: &f32| match float_type {
        FloatType::F32 => value.to_le_bytes().to_vec(),
        FloatType::F16 => f16::from_f32(*value).to_le_bytes().to_vec(),
        FloatType::BF16 => bf16::from_f32(*value).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(encode).collect()
}

fn decoded(bytes: &[u8], float_type: FloatType) -> Vec<f32> {
    match float_type {
        FloatType::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|four| f32::from_le_bytes(*four))
            .collect(),
        FloatType::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|two| f16::from_le_bytes(*two).to_f32())
            .collect(),
        FloatType::BF16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|two| bf16::from_le_bytes(*two).to_f32())
            .collect(),
    }
}

/// The matrix as it is, and interleaved where it can be.
fn arrangements(matrix: &CpuMatrix) -> Vec<CpuMatrix> {
    let interleaved = match matrix {
        CpuMatrix::Packed(packed) => Interleaved::new(packed).map(CpuMatrix::Interleaved),
        _ => None,
    };
    std::iter::once(matrix.clone()).chain(interleaved).collect()
}

fn plain(case: &Case, random: &mut Random) -> (CpuMatrix, Vec<f64>) {
    let values: Vec<f32> = (0..case.rows * case.cols).map(|_| random.float()).collect();
    let (data, values) = stored(&values, case.float_type);
    let (rows, cols, float_type) = (case.rows, case.cols, case.float_type);
    let matrix = PlainMatrix {
        rows,
        cols,
        float_type,
        data,
    };
    let values = values.into_iter().map(f64::from).collect();
    (CpuMatrix::Plain(matrix), values)
}

/// Every case's matrices with their weights.
fn each_matrix(check: impl Fn(&Case, &CpuMatrix, &[f64], &mut Random)) {
    for case in &CASES {
        let mut random = Random(0x1234_5678 + case.cols as u64);
        let held = packed(case, &mut random);
        let weights: Vec<f64> = (0..case.rows * case.cols)
            .map(|index| weight(case, &held, index))
            .collect();
        for matrix in arrangements(&held.matrix) {
            check(case, &matrix, &weights, &mut random);
        }
        let (matrix, weights) = plain(case, &mut random);
        check(case, &matrix, &weights, &mut random);
    }
}

/// Products of f32, which `matrix.rs` holds against f64, tell what each combination of types must give, bit for bit.
fn check_linear(cpu: &Cpu, case: &Case, matrix: &CpuMatrix, random: &mut Random) {
    for m in [1, 3, 33] {
        for (from, to) in TYPES {
            let (x, seen) = stored(&input(&Case { m, ..*case }, random), from);
            let (bias_data, bias) = stored(&(0..case.rows).map(|_| random.float()).collect::<Vec<_>>(), to);
            for precision in [Precision::Exact, Precision::Rounded] {
                for bias in [None, Some(&bias)] {
                    let mut expected = multiply(cpu, matrix, &seen, m, precision);
                    if let Some(bias) = bias {
                        let rows = expected.chunks_exact_mut(case.rows);
                        rows.for_each(|row| row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias));
                    }
                    let mut got = vec![0xaa; expected.len() * to.size_bytes()];
                    cpu.linear(Linear {
                        weight: matrix,
                        bias: bias.map(|_| Floats::Bytes(to, &bias_data)),
                        input: Floats::Bytes(from, &x),
                        m,
                        output: FloatsMut::Bytes(to, &mut got),
                        precision,
                    });
                    let what = format!("{} {case:?} m {m} {from:?} {to:?} {precision:?}", cpu.instructions());
                    assert!(got == encoded(&expected, to), "{what}, bias {}", bias.is_some());
                }
            }
        }
    }
}

#[test]
fn values_of_sixteen_bits_and_biases() {
    every_set(|cpu| each_matrix(|case, matrix, _, random| check_linear(cpu, case, matrix, random)));
}

#[test]
fn floats_go_straight_through() {
    let mut random = Random(9);
    let held = packed(&BASE, &mut random);
    let x = input(&BASE, &mut random);
    let cpu = Cpu::with_instructions(2, None).unwrap();
    let mut got = vec![f32::NAN; BASE.rows];
    cpu.linear(Linear {
        weight: &held.matrix,
        bias: None,
        input: Floats::F32(&x),
        m: 1,
        output: FloatsMut::F32(&mut got),
        precision: Precision::Rounded,
    });
    assert_eq!(got, multiply(&cpu, &held.matrix, &x, 1, Precision::Rounded));
}

#[test]
fn the_way_back() {
    every_set(|cpu| {
        each_matrix(|case, matrix, weights, random| {
            let turned: Vec<f64> = (0..case.cols)
                .flat_map(|col| (0..case.rows).map(move |row| weights[row * case.cols + col]))
                .collect();
            for m in [1, 5, 40] {
                for float_type in FLOAT_TYPES {
                    let values: Vec<f32> = (0..m * case.rows).map(|_| random.float()).collect();
                    let (bytes, seen) = stored(&values, float_type);
                    let seen: Vec<f64> = seen.into_iter().map(f64::from).collect();
                    let expected = reference(&seen, &turned, (case.cols, case.rows), |_| true);
                    let mut got = vec![0xaa; m * case.cols * float_type.size_bytes()];
                    cpu.backward(Backward {
                        weight: matrix,
                        input: Floats::Bytes(float_type, &bytes),
                        m,
                        output: FloatsMut::Bytes(float_type, &mut got),
                    });
                    let tolerance = match float_type {
                        FloatType::F32 => 1e-5,
                        FloatType::F16 => 6e-4,
                        FloatType::BF16 => 5e-3,
                    };
                    let what = format!("{} {case:?} m {m} {float_type:?}", cpu.instructions());
                    assert_close(&what, &decoded(&got, float_type), &expected, tolerance);
                }
            }
        });
    });
}

#[test]
fn rows_of_sixteen_bits() {
    let cpu = Cpu::with_instructions(2, None).unwrap();
    each_matrix(|case, matrix, weights, _| {
        let ids = [case.rows as u32 - 1, 0, case.rows as u32 / 2];
        for float_type in FLOAT_TYPES {
            let mut got = vec![0xaa; ids.len() * case.cols * float_type.size_bytes()];
            cpu.rows(matrix, &ids, FloatsMut::Bytes(float_type, &mut got));
            let tolerance = match float_type {
                FloatType::F32 => 1e-6,
                FloatType::F16 => 6e-4,
                FloatType::BF16 => 5e-3,
            };
            for (index, got) in decoded(&got, float_type).into_iter().enumerate() {
                let expected = weights[ids[index / case.cols] as usize * case.cols + index % case.cols];
                let difference = (f64::from(got) - expected).abs();
                assert!(
                    difference <= tolerance * expected.abs().max(1.0),
                    "{case:?} {index}: {got} for {expected}"
                );
            }
        }
    });
}
