//! Every instruction set of this machine against f64 products of weights that this file decodes itself: all widths, odd
//! shapes, all float types, extreme codes, unaligned bytes.

use bytes::Bytes;
use half::{bf16, f16};
use planish_cpu::{Cpu, Interleaved, Matmul, Matrix, PlainMatrix, Precision, Rounding, instruction_sets};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};

const FLOAT_TYPES: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];

/// A small random number generator (xorshift64*), so that failures can be repeated.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Little-endian bytes of `values`, and the values as stored, at an odd address.
fn stored(values: &[f32], float_type: FloatType) -> (Bytes, Vec<f32>) {
    let mut data = vec![0u8];
    let mut rounded = Vec::new();
    for &value in values {
        match float_type {
            FloatType::F32 => {
                data.extend(value.to_le_bytes());
                rounded.push(value);
            }
            FloatType::F16 => {
                data.extend(f16::from_f32(value).to_le_bytes());
                rounded.push(f16::from_f32(value).to_f32());
            }
            FloatType::BF16 => {
                data.extend(bf16::from_f32(value).to_le_bytes());
                rounded.push(bf16::from_f32(value).to_f32());
            }
        }
    }
    (Bytes::from(data).slice(1..), rounded)
}

#[derive(Clone, Copy, Debug)]
struct Case {
    rows: usize,
    cols: usize,
    bits: u32,
    group: usize,
    m: usize,
    float_type: FloatType,
    codes: Codes,
}

#[derive(Clone, Copy, Debug)]
enum Codes {
    Random,
    Largest,
}

/// A packed matrix and what is in it.
struct Packed {
    matrix: Matrix,
    codes: Vec<u64>,
    scales: Vec<f32>,
    biases: Vec<f32>,
}

fn packed(case: &Case, random: &mut Random) -> Packed {
    let Case {
        rows,
        cols,
        bits,
        group,
        ..
    } = *case;
    let largest = (1u64 << bits) - 1;
    let codes: Vec<u64> = (0..rows * cols)
        .map(|_| match case.codes {
            Codes::Random => random.next() >> 20 & largest,
            Codes::Largest => largest,
        })
        .collect();
    // A row is a stream of bits, lowest first: written bit by bit, as the format is defined. One byte in front shifts it.
    let mut stream = vec![0u8; 1 + rows * cols * bits as usize / 8];
    for (index, code) in codes.iter().enumerate() {
        for bit in 0..bits as usize {
            let at = 8 + index * bits as usize + bit;
            stream[at / 8] |= ((code >> bit & 1) as u8) << (at % 8);
        }
    }
    let groups = rows * cols / group;
    let (scale_data, scales) = stored(
        &(0..groups).map(|_| random.float() * 0.02).collect::<Vec<_>>(),
        case.float_type,
    );
    let (bias_data, biases) = stored(
        &(0..groups).map(|_| random.float() * 0.2).collect::<Vec<_>>(),
        case.float_type,
    );
    let shape = PackedShape::new(rows, cols, Packing::new(bits, group).unwrap(), case.float_type).unwrap();
    let matrix = PackedMatrix::new(shape, Bytes::from(stream).slice(1..), scale_data, bias_data).unwrap();
    Packed {
        matrix: Matrix::Packed(matrix),
        codes,
        scales,
        biases,
    }
}

/// x with outliers and a zero group.
fn input(case: &Case, random: &mut Random) -> Vec<f32> {
    let value = |index: usize| match (case.codes, index % 97, index / case.group % 5) {
        (Codes::Largest, ..) => 1.0,
        (_, _, 3) => 0.0,
        (_, 13, _) => 20.0 * random.float(),
        _ => random.float(),
    };
    (0..case.m * case.cols).map(value).collect()
}

fn multiply(cpu: &Cpu, matrix: &Matrix, x: &[f32], m: usize, precision: Precision) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * matrix.rows()];
    cpu.matmul(Matmul {
        weights: &[matrix],
        input: x,
        m,
        outputs: &mut [&mut out],
        precision,
    });
    out
}

/// Products in f64 of the rows of `x` with weights given by index, and the sums of their magnitudes.
fn reference(case: &Case, x: &[f64], weight: impl Fn(usize) -> f64) -> Vec<(f64, f64)> {
    let mut products = Vec::new();
    for x in x.chunks_exact(case.cols) {
        for row in 0..case.rows {
            let terms = x.iter().enumerate().map(|(col, x)| x * weight(row * case.cols + col));
            products.push(terms.fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs())));
        }
    }
    products
}

/// x as the kernels of rounded x see it: the same rounding, written down again.
fn rounded(x: &[f32], rounding: Rounding) -> Vec<f64> {
    let block = match rounding {
        Rounding::Int8 { block } => block,
        Rounding::Bf16 => return x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect(),
    };
    let round = |values: &[f32]| {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest == 0.0 { 0.0 } else { 127.0 / largest };
        let scale = f64::from(largest / 127.0);
        values
            .iter()
            .map(|value| f64::from((value * inverse).round_ties_even()) * scale)
            .collect::<Vec<_>>()
    };
    x.chunks_exact(block).flat_map(round).collect()
}

fn assert_close(what: &str, got: &[f32], expected: &[(f64, f64)], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, (sum, size))) in got.iter().zip(expected).enumerate() {
        let error = (f64::from(*got) - sum).abs();
        assert!(
            error <= tolerance * size + 1e-30,
            "{what}, value {index}: {got} for {sum}, terms of {size}"
        );
    }
}

fn check(cpu: &Cpu, case: Case) {
    let mut random = Random(0x9e37_79b9 + case.cols as u64 * 31 + u64::from(case.bits));
    let packed = packed(&case, &mut random);
    let x = input(&case, &mut random);
    let weight = |index: usize| {
        let group = index / case.group;
        f64::from(packed.scales[group]) * packed.codes[index] as f64 + f64::from(packed.biases[group])
    };
    let what = |precision| format!("{} {case:?} {precision:?}", cpu.instructions());

    let exact_x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let got = multiply(cpu, &packed.matrix, &x, case.m, Precision::Exact);
    assert_close(&what(Precision::Exact), &got, &reference(&case, &exact_x, weight), 1e-5);

    // With the rounding accounted for, what is left is the rounding of f32 sums.
    let rounding = cpu.rounding(case.m, Packing::new(case.bits, case.group).unwrap());
    let rounded_weight = |index: usize| match rounding {
        Rounding::Int8 { .. } => weight(index),
        Rounding::Bf16 => bf16::from_f32(weight(index) as f32).to_f64(),
    };
    let got = multiply(cpu, &packed.matrix, &x, case.m, Precision::Rounded);
    assert_close(
        &what(Precision::Rounded),
        &got,
        &reference(&case, &rounded(&x, rounding), rounded_weight),
        1e-5,
    );
}

/// As [`check`], for weights with interleaved rows: products, and the rows themselves.
fn check_interleaved(cpu: &Cpu, case: Case) {
    let mut random = Random(0x51_7cc1 + case.cols as u64 * 31 + u64::from(case.bits));
    let packed = packed(&case, &mut random);
    let Matrix::Packed(matrix) = &packed.matrix else {
        panic!("made as such")
    };
    let matrix = Matrix::Interleaved(Interleaved::new(matrix).expect("whole words and blocks of rows"));
    assert_eq!(matrix.bytes(), packed.matrix.bytes());
    let x = input(&case, &mut random);
    let weight = |index: usize| {
        let group = index / case.group;
        f64::from(packed.scales[group]) * packed.codes[index] as f64 + f64::from(packed.biases[group])
    };
    let what = |precision| format!("{} interleaved {case:?} {precision:?}", cpu.instructions());
    let exact_x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
    let got = multiply(cpu, &matrix, &x, case.m, Precision::Exact);
    assert_close(&what(Precision::Exact), &got, &reference(&case, &exact_x, weight), 1e-5);
    let rounding = cpu.interleaved_rounding(case.m, Packing::new(case.bits, case.group).unwrap());
    let rounded_weight = |index: usize| match rounding {
        Rounding::Int8 { .. } => weight(index),
        Rounding::Bf16 => bf16::from_f32(weight(index) as f32).to_f64(),
    };
    let expected = reference(&case, &rounded(&x, rounding), rounded_weight);
    let got = multiply(cpu, &matrix, &x, case.m, Precision::Rounded);
    assert_close(&what(Precision::Rounded), &got, &expected, 1e-5);

    let last = case.rows as u32 - 1;
    let mut row = vec![f32::NAN; case.cols];
    cpu.rows(&matrix, &[last], &mut row);
    let start = last as usize * case.cols;
    for (col, value) in row.iter().enumerate() {
        let expected = weight(start + col);
        assert!(
            (f64::from(*value) - expected).abs() <= 1e-6,
            "{case:?}, column {col}: {value} for {expected}"
        );
    }
}

fn every_set(check: impl Fn(&Cpu)) {
    for name in instruction_sets() {
        check(&Cpu::with_instructions(2, Some(name)).unwrap());
    }
}

const BASE: Case = Case {
    rows: 33,
    cols: 320,
    bits: 4,
    group: 64,
    m: 1,
    float_type: FloatType::BF16,
    codes: Codes::Random,
};

#[test]
fn all_widths_groups_and_columns() {
    every_set(|cpu| {
        for bits in [2, 3, 4, 5, 6, 8] {
            for group in [8, 16, 24, 32, 64, 128] {
                for groups in [1, 3, 4, 5, 17, 33, 68] {
                    // A row is whole 32-bit words.
                    if !(group * groups * bits as usize).is_multiple_of(32) {
                        continue;
                    }
                    for m in [1, 3, 32] {
                        check(
                            cpu,
                            Case {
                                bits,
                                group,
                                cols: group * groups,
                                m,
                                rows: 7,
                                ..BASE
                            },
                        );
                    }
                }
            }
        }
    });
}

#[test]
fn all_rows_and_row_counts_of_x() {
    every_set(|cpu| {
        for bits in [2, 3, 4, 5, 6, 8] {
            for rows in [1, 7, 8, 33, 100] {
                for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33, 70] {
                    check(cpu, Case { bits, rows, m, ..BASE });
                }
            }
        }
    });
}

#[test]
fn interleaved_rows() {
    every_set(|cpu| {
        for bits in [2, 4, 8] {
            for (group, groups) in [(32, 1), (32, 18), (64, 9), (64, 17), (128, 3), (96, 5)] {
                for (rows, m) in [
                    (16, 1),
                    (336, 1),
                    (48, 2),
                    (16, 3),
                    (304, 8),
                    (48, 16),
                    (48, 17),
                    (304, 33),
                ] {
                    for float_type in [FloatType::F16, FloatType::BF16] {
                        let cols = group * groups;
                        let case = Case {
                            rows,
                            cols,
                            bits,
                            group,
                            m,
                            float_type,
                            ..BASE
                        };
                        check_interleaved(cpu, case);
                    }
                }
            }
        }
    });
}

#[test]
fn what_cannot_be_interleaved() {
    let fits = |case: Case| match packed(&case, &mut Random(1)).matrix {
        Matrix::Packed(matrix) => Interleaved::new(&matrix).is_some(),
        _ => false,
    };
    let case = Case { rows: 32, ..BASE };
    assert!(fits(case));
    assert!(!fits(Case { rows: 33, ..case }));
    assert!(!fits(Case { bits: 3, ..case }));
    assert!(!fits(Case { group: 16, ..case }));
    let float_type = FloatType::F32;
    assert!(!fits(Case { float_type, ..case }));
}

#[test]
fn long_rows() {
    every_set(|cpu| {
        for bits in [2, 3, 4, 5, 6, 8] {
            for m in [1, 18, 40] {
                check(
                    cpu,
                    Case {
                        bits,
                        cols: 4096 + 64,
                        m,
                        rows: 5,
                        ..BASE
                    },
                );
            }
        }
    });
}

#[test]
fn float_types_of_scales() {
    every_set(|cpu| {
        for float_type in FLOAT_TYPES {
            for m in [1, 4] {
                check(
                    cpu,
                    Case {
                        float_type,
                        m,
                        cols: 64 * 19,
                        ..BASE
                    },
                );
            }
        }
    });
}

#[test]
fn extreme_codes_do_not_saturate() {
    every_set(|cpu| {
        for bits in [2, 3, 4, 5, 6, 8] {
            for m in [1, 5] {
                check(
                    cpu,
                    Case {
                        bits,
                        m,
                        cols: 4096,
                        codes: Codes::Largest,
                        rows: 9,
                        ..BASE
                    },
                );
            }
        }
    });
}

#[test]
fn plain_matrices() {
    every_set(|cpu| {
        for float_type in FLOAT_TYPES {
            for (rows, cols) in [(1, 1), (7, 8), (33, 320), (8, 97), (100, 1000)] {
                for m in [1, 2, 5, 16, 33] {
                    let case = Case {
                        rows,
                        cols,
                        m,
                        float_type,
                        ..BASE
                    };
                    let mut random = Random(7);
                    let (data, values) = stored(
                        &(0..rows * cols).map(|_| random.float()).collect::<Vec<_>>(),
                        float_type,
                    );
                    let x = input(&case, &mut random);
                    let exact_x: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                    let matrix = Matrix::Plain(PlainMatrix {
                        rows,
                        cols,
                        float_type,
                        data,
                    });
                    let got = multiply(cpu, &matrix, &x, m, Precision::Rounded);
                    let expected = reference(&case, &exact_x, |index| f64::from(values[index]));
                    assert_close(&format!("{} {case:?}", cpu.instructions()), &got, &expected, 1e-5);
                }
            }
        }
    });
}

#[test]
fn several_weights_share_an_input() {
    every_set(|cpu| {
        let mut random = Random(11);
        let shapes = [(576, 4), (192, 4), (192, 6), (40, 0), (1, 4), (3, 4)];
        let matrix = |&(rows, bits): &(usize, u32)| {
            let case = Case {
                rows,
                bits,
                cols: 192,
                ..BASE
            };
            if bits > 0 {
                return packed(&case, &mut random).matrix;
            }
            let (data, _) = stored(&vec![0.5; rows * 192], FloatType::F16);
            Matrix::Plain(PlainMatrix {
                rows,
                cols: 192,
                float_type: FloatType::F16,
                data,
            })
        };
        let matrices: Vec<Matrix> = shapes.iter().map(matrix).collect();
        let weights: Vec<&Matrix> = matrices.iter().cycle().take(14).collect();
        for m in [1, 6, 35] {
            let x: Vec<f32> = (0..m * 192).map(|_| random.float()).collect();
            let mut outputs: Vec<Vec<f32>> = weights.iter().map(|weight| vec![f32::NAN; m * weight.rows()]).collect();
            let mut slices: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
            let precision = Precision::Rounded;
            cpu.matmul(Matmul {
                weights: &weights,
                input: &x,
                m,
                outputs: &mut slices,
                precision,
            });
            for (weight, output) in weights.iter().zip(&outputs) {
                assert_eq!(output, &multiply(cpu, weight, &x, m, precision));
            }
        }
    });
}

#[test]
fn rows_of_an_embedding() {
    let mut random = Random(5);
    let case = Case {
        rows: 50,
        cols: 96,
        group: 32,
        ..BASE
    };
    let ids = [0, 49, 7, 7, 12];
    for bits in [2, 3, 4, 5, 6, 8] {
        let packed = packed(&Case { bits, ..case }, &mut random);
        let mut out = vec![0.0; ids.len() * case.cols];
        Cpu::with_instructions(2, None)
            .unwrap()
            .rows(&packed.matrix, &ids, &mut out);
        for (index, got) in out.iter().enumerate() {
            let at = ids[index / case.cols] as usize * case.cols + index % case.cols;
            let expected = packed.scales[at / 32] * packed.codes[at] as f32 + packed.biases[at / 32];
            assert!(
                (got - expected).abs() <= 1e-6,
                "{bits} bits, value {index}: {got} for {expected}"
            );
        }
    }
    let (data, values) = stored(
        &(0..case.rows * case.cols).map(|_| random.float()).collect::<Vec<_>>(),
        FloatType::F16,
    );
    let matrix = Matrix::Plain(PlainMatrix {
        rows: case.rows,
        cols: case.cols,
        float_type: FloatType::F16,
        data,
    });
    let mut out = vec![0.0; ids.len() * case.cols];
    Cpu::with_instructions(1, None).unwrap().rows(&matrix, &ids, &mut out);
    let expected = ids
        .iter()
        .flat_map(|&id| &values[id as usize * case.cols..][..case.cols]);
    assert!(out.iter().eq(expected));
}

#[test]
fn infinity_and_nan_reach_the_output() {
    every_set(|cpu| {
        for poison in [f32::NAN, f32::INFINITY] {
            for precision in [Precision::Exact, Precision::Rounded] {
                for m in [1, 3, 33] {
                    let case = Case { m, ..BASE };
                    let mut random = Random(3);
                    let packed = packed(&case, &mut random);
                    let mut x = input(&case, &mut random);
                    x[100] = poison;
                    let out = multiply(cpu, &packed.matrix, &x, m, precision);
                    let (poisoned, clean) = out.split_at(case.rows);
                    assert!(
                        poisoned.iter().all(|value| !value.is_finite()),
                        "{} {precision:?}",
                        cpu.instructions()
                    );
                    assert!(
                        clean.iter().all(|value| value.is_finite()),
                        "{} {precision:?}",
                        cpu.instructions()
                    );
                }
            }
        }
    });
}

#[test]
fn unknown_instruction_set_names_those_that_work() {
    let error = Cpu::with_instructions(1, Some("avx1024")).err().unwrap().to_string();
    assert!(error.contains("avx1024") && error.contains("scalar"), "{error}");
}
