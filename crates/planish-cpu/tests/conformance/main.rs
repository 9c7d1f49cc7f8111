//! Every instruction set of this machine against f64 products of weights that `case.rs` decodes itself: all widths, odd
//! shapes and counts (`matrix.rs`, which prints a table), all float types, extreme codes, unaligned bytes.

mod case;
mod linear;
mod matrix;
mod table;

use case::{BASE, Case, Codes, FLOAT_TYPES, Random, check, every_set, input, multiply, packed, stored};
use planish_cpu::{Cpu, CpuMatrix, FloatsMut, Interleaved, Matmul, Precision};
use planish_format::FloatType;
use planish_ops::PlainMatrix;

#[test]
fn what_cannot_be_interleaved() {
    let fits = |case: Case| match packed(&case, &mut Random(1)).matrix {
        CpuMatrix::Packed(matrix) => Interleaved::new(&matrix).is_some(),
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
fn zero_points_are_kept_exactly_or_not_at_all() {
    let with_zero_points = |case: Case| match packed(&case, &mut Random(3)).matrix {
        CpuMatrix::Packed(matrix) => Interleaved::with_zero_points(&matrix).map(|found| (found, matrix)),
        _ => panic!("packed"),
    };
    let (rows, float_type, zero_points) = (32, FloatType::F32, true);
    for bits in [2, 4, 8] {
        let case = Case {
            rows,
            bits,
            float_type,
            zero_points,
            ..BASE
        };
        let (interleaved, matrix) = with_zero_points(case).unwrap();
        assert!(interleaved.data().len() < matrix.codes.len() + matrix.scales.len() + matrix.biases.len());
        let back = interleaved.in_order();
        assert!(back.codes == matrix.codes && back.scales == matrix.scales && back.biases == matrix.biases);
        // Any biases, and scales of other types.
        assert!(
            with_zero_points(Case {
                zero_points: false,
                ..case
            })
            .is_none()
        );
        assert!(
            with_zero_points(Case {
                float_type: FloatType::F16,
                ..case
            })
            .is_none()
        );
    }
}

#[test]
fn interleaved_bytes_are_the_same_weights() {
    for bits in [2, 4, 8] {
        let case = Case { rows: 48, bits, ..BASE };
        let CpuMatrix::Packed(matrix) = packed(&case, &mut Random(2)).matrix else {
            panic!("packed")
        };
        let interleaved = Interleaved::new(&matrix).unwrap();
        let same = Interleaved::of_data(interleaved.shape(), interleaved.data().clone()).unwrap();
        let back = same.in_order();
        assert!(back.codes == matrix.codes && back.scales == matrix.scales && back.biases == matrix.biases);
        assert_eq!(
            same.data().len(),
            matrix.codes.len() + matrix.scales.len() + matrix.biases.len()
        );
        let short = interleaved.data().slice(1..);
        assert!(Interleaved::of_data(interleaved.shape(), short).is_none());
    }
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
            CpuMatrix::Plain(PlainMatrix {
                rows,
                cols: 192,
                float_type: FloatType::F16,
                data,
            })
        };
        let matrices: Vec<CpuMatrix> = shapes.iter().map(matrix).collect();
        let weights: Vec<&CpuMatrix> = matrices.iter().cycle().take(14).collect();
        for m in [1, 6, 35] {
            let x: Vec<f32> = (0..m * 192).map(|_| random.float()).collect();
            let mut outputs: Vec<Vec<f32>> = weights.iter().map(|weight| vec![f32::NAN; m * weight.rows()]).collect();
            let mut slices: Vec<&mut [f32]> = outputs.iter_mut().map(Vec::as_mut_slice).collect();
            let precision = Precision::Rounded;
            cpu.matmul(Matmul {
                weights: &weights,
                input: &x,
                m,
                whole: m,
                outputs: &mut slices,
                precision,
            });
            for (weight, output) in weights.iter().zip(&outputs) {
                assert_eq!(output, &multiply(cpu, weight, &x, m, precision));
            }
        }
    });
}

/// A row of many gives the same bits in whichever piece of them it comes.
#[test]
fn rows_are_the_same_in_any_piece() {
    let mut random = Random(17);
    let (rows, cols) = (48, 192);
    let mut matrices = Vec::new();
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [64, 16] {
            let case = Case {
                rows,
                cols,
                bits,
                group,
                ..BASE
            };
            let packed = packed(&case, &mut random).matrix;
            if let CpuMatrix::Packed(matrix) = &packed {
                matrices.extend(Interleaved::new(matrix).map(CpuMatrix::Interleaved));
            }
            matrices.push(packed);
        }
    }
    let values: Vec<f32> = (0..rows * cols).map(|_| random.float()).collect();
    matrices.push(CpuMatrix::Plain(PlainMatrix {
        rows,
        cols,
        float_type: FloatType::BF16,
        data: stored(&values, FloatType::BF16).0,
    }));
    let x: Vec<f32> = (0..60 * cols).map(|_| random.float()).collect();
    every_set(|cpu| {
        for (index, matrix) in matrices.iter().enumerate() {
            for precision in [Precision::Exact, Precision::Rounded] {
                for whole in [17, 30, 60] {
                    let expected = multiply(cpu, matrix, &x[..whole * cols], whole, precision);
                    let (mut first, mut found) = (0, Vec::new());
                    for size in [1, 2, 11, 1, 16, 19, 60] {
                        let end = whole.min(first + size);
                        let mut products = vec![f32::NAN; (end - first) * rows];
                        cpu.matmul(Matmul {
                            weights: &[matrix],
                            input: &x[first * cols..end * cols],
                            m: end - first,
                            whole,
                            outputs: &mut [&mut products],
                            precision,
                        });
                        found.extend(products);
                        first = end;
                    }
                    let name = cpu.instructions();
                    assert_eq!(found, expected, "{name}, matrix {index}, {precision:?}, {whole} rows");
                }
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
            .rows(&packed.matrix, &ids, FloatsMut::F32(&mut out));
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
    let matrix = CpuMatrix::Plain(PlainMatrix {
        rows: case.rows,
        cols: case.cols,
        float_type: FloatType::F16,
        data,
    });
    let mut out = vec![0.0; ids.len() * case.cols];
    Cpu::with_instructions(1, None)
        .unwrap()
        .rows(&matrix, &ids, FloatsMut::F32(&mut out));
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
