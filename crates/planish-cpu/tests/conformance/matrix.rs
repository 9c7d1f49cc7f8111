//! The conformance matrix: every instruction set of this machine, every way that it multiplies, every width, over sweeps of rows of x,
//! rows, columns and groups. A cell is the largest error against f64, relative to the sum of the terms' magnitudes; a row also says
//! how many products were compared, and up to how many rows of x each has the bits that it has alone.
//! `cargo test -p planish-cpu --test conformance -- --nocapture` prints it; `PLANISH_CONFORMANCE=whole` crosses everything.

use std::collections::HashMap;
use std::env;

use bytes::Bytes;
use planish_cpu::{Cpu, CpuMatrix, FloatsMut, Interleaved, MatmulEach, Precision, Rounding, instruction_sets};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};
use planish_ops::PlainMatrix;

use crate::case::{
    BASE, Case, FLOAT_TYPES, Packed, Random, input, multiply, packed, reference, seen_input, seen_weights, stored,
    weight,
};
use crate::table::{Made, Table, same_bits};

const WIDTHS: [u32; 6] = [2, 3, 4, 5, 6, 8];
/// Beyond so many rows of the weight only these are compared: the first and last ones, and one in so many between.
const FIRST_AND_LAST: usize = 64;
const EVERY: usize = 64;

/// A weight, which parts of itself and parts of one x are multiplied with.
struct Shape {
    bits: u32,
    group: usize,
    cols: usize,
    rows: Vec<usize>,
    m: Vec<usize>,
}

fn whole() -> bool {
    match env::var("PLANISH_CONFORMANCE").as_deref() {
        Err(_) | Ok("" | "small") => false,
        Ok("whole") => true,
        Ok(other) => panic!("PLANISH_CONFORMANCE is {other:?}: neither small nor whole"),
    }
}

fn all_m() -> Vec<usize> {
    (1..=33).chain([70]).collect()
}

/// What is crossed for weights in the format's order, or with interleaved rows, which come in blocks of 16.
fn shapes(interleaved: bool) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let step = if interleaved { 16 } else { 1 };
    let widths = WIDTHS
        .into_iter()
        .filter(|bits| !interleaved || matches!(bits, 2 | 4 | 8));
    for bits in widths {
        let mut add = |group: usize, cols: usize, rows: &[usize], m: &[usize]| {
            // A row is whole 32-bit words.
            if (cols * bits as usize).is_multiple_of(32) {
                let (rows, m) = (rows.to_vec(), m.to_vec());
                shapes.push(Shape {
                    bits,
                    group,
                    cols,
                    rows,
                    m,
                });
            }
        };
        let groups: &[usize] = if interleaved {
            &[32, 64, 96, 128]
        } else {
            &[8, 16, 24, 32, 64, 96, 128]
        };
        let rows: Vec<usize> = match (whole(), interleaved) {
            (true, false) => (1..=17).chain([33, 64, 100]).collect(),
            (true, true) => vec![16, 32, 48, 80, 304, 336],
            (false, false) => vec![7, 12],
            (false, true) => vec![16],
        };
        for (turn, &group) in groups.iter().enumerate() {
            let counts: Vec<usize> = if whole() {
                (1..=9).chain([17, 33, 68]).collect()
            } else {
                vec![1, 3, 4, 5, 17, 33, 68]
            };
            for (place, count) in counts.into_iter().enumerate() {
                // All of 2 to 31 rows of x, in turns.
                let next = 2 + (turn * 7 + place * 3 + bits as usize) % 29;
                let some = [1, 3, next, 32];
                let m = if whole() { all_m() } else { some.to_vec() };
                let rows = if count > 17 && !whole() { &rows[..1] } else { &rows };
                add(group, group * count, rows, &m);
            }
        }
        // All rows of x with all rows of a tile and beside it.
        let rows: Vec<usize> = if interleaved {
            vec![16, 48, 304]
        } else {
            (1..=8).chain([33, 100]).collect()
        };
        add(64, 320, &rows, &all_m());
        // Long rows, and many: more than 15 bits count.
        add(64, 4096 + 64, &[5.max(step)], &[1, 18, 40]);
        add(64, 32_768 + 64, &[3.max(step)], &[1, 16, 33]);
        add(64, 64, &[32_768 + 3.max(step)], &[1, 2, 33]);
    }
    shapes
}

/// Whether a row of so many is compared.
fn compared(row: usize, rows: usize) -> bool {
    row < FIRST_AND_LAST || row + FIRST_AND_LAST >= rows || row.is_multiple_of(EVERY)
}

/// The first rows of a packed matrix.
fn first_rows(matrix: &PackedMatrix, rows: usize) -> PackedMatrix {
    let part = |bytes: &Bytes| bytes.slice(..bytes.len() / matrix.rows * rows);
    let shape = PackedShape::new(rows, matrix.cols, matrix.packing, matrix.scale_type).unwrap();
    PackedMatrix::new(shape, part(&matrix.codes), part(&matrix.scales), part(&matrix.biases)).unwrap()
}

/// A weight with x, and sums in f64 for each way that x was rounded.
struct Setting {
    case: Case,
    packed: Packed,
    weights: Vec<f64>, // (rows, cols)
    x: Vec<f32>,       // (m, cols)
    sums: HashMap<String, Vec<(f64, f64)>>,
}

impl Setting {
    fn new(shape: &Shape, float_type: FloatType, zero_points: bool) -> Setting {
        let largest = |values: &[usize]| values.iter().copied().max().expect("some");
        let case = Case {
            rows: largest(&shape.rows),
            cols: shape.cols,
            bits: shape.bits,
            group: shape.group,
            m: largest(&shape.m),
            float_type,
            zero_points,
            ..BASE
        };
        let mut random = Random(0x9e37_79b9 + case.cols as u64 * 31 + u64::from(case.bits));
        let packed = packed(&case, &mut random);
        let x = input(&case, &mut random);
        let weights = (0..case.rows * case.cols)
            .map(|index| weight(&case, &packed, index))
            .collect();
        Setting {
            case,
            packed,
            weights,
            x,
            sums: HashMap::new(),
        }
    }

    /// The sums for a rounding, `None` for exact x. NaN is not compared. // (m, rows)
    fn expected(&mut self, rounding: Option<Rounding>) -> &[(f64, f64)] {
        let Setting {
            case, weights, x, sums, ..
        } = self;
        sums.entry(format!("{rounding:?}")).or_insert_with(|| {
            let (rows, cols) = (case.rows, case.cols);
            let weights = seen_weights(weights, rounding);
            reference(&seen_input(x, rounding), &weights, (rows, cols), |row| {
                compared(row, rows)
            })
        })
    }
}

/// The last row of x of every `m` by itself, which the product of many weights with a row each must give too.
fn rows_alone(
    cpu: &Cpu,
    matrix: &CpuMatrix,
    x: &[f32],
    m: &[usize],
    precision: Precision,
) -> Result<Vec<(usize, Vec<f32>)>, String> {
    let row = |m: usize| &x[(m - 1) * matrix.cols()..m * matrix.cols()];
    let alone: Vec<(usize, Vec<f32>)> = m
        .iter()
        .map(|&m| (m - 1, multiply(cpu, matrix, row(m), 1, precision)))
        .collect();
    let inputs: Vec<f32> = m.iter().flat_map(|&m| row(m)).copied().collect();
    let mut outputs = vec![f32::NAN; m.len() * matrix.rows()];
    cpu.matmul_each(MatmulEach {
        weights: &vec![matrix; m.len()],
        inputs: &inputs,
        outputs: &mut outputs,
        precision,
    });
    match alone
        .iter()
        .zip(outputs.chunks_exact(matrix.rows()))
        .all(|((_, alone), each)| same_bits(alone, each))
    {
        true => Ok(alone),
        false => Err("a row with a weight of its own has other bits than alone".to_owned()),
    }
}

fn name(rounding: Option<Rounding>) -> String {
    match rounding {
        None => "f32".to_owned(),
        Some(Rounding::Int8 { block }) => format!("8 bits by {block:>3}"),
        Some(Rounding::Int16 { block }) => format!("16 bits by {block}"),
        Some(Rounding::Bf16) => "bf16".to_owned(),
    }
}

fn check_packed(table: &mut Table, cpus: &[Cpu], setting: &mut Setting, shape: &Shape, interleaved: bool) {
    let packing = Packing::new(shape.bits, shape.group).unwrap();
    for &rows in &shape.rows {
        let CpuMatrix::Packed(all) = &setting.packed.matrix else {
            panic!("made as such")
        };
        let part = first_rows(all, rows);
        let matrix = match interleaved {
            true => {
                let interleaved = Interleaved::new(&part).or_else(|| Interleaved::with_zero_points(&part));
                CpuMatrix::Interleaved(interleaved.expect("whole words and blocks of rows"))
            }
            false => CpuMatrix::Packed(part),
        };
        for (place, cpu) in cpus.iter().enumerate() {
            for precision in [Precision::Exact, Precision::Rounded] {
                let of_shape = format!(
                    "{}, {rows} rows, {:?}, interleaved: {interleaved}, {precision:?}",
                    cpu.instructions(),
                    setting.case
                );
                let alone = rows_alone(cpu, &matrix, &setting.x, &shape.m, precision);
                let alone = alone.unwrap_or_else(|error| panic!("{of_shape}: {error}"));
                for &m in &shape.m {
                    let rounding = match (precision, interleaved) {
                        (Precision::Exact, _) => None,
                        (Precision::Rounded, true) => Some(cpu.interleaved_rounding(m, packing)),
                        (Precision::Rounded, false) => Some(cpu.rounding(m, packing)),
                    };
                    let values = multiply(cpu, &matrix, &setting.x[..m * shape.cols], m, precision);
                    let made = Made {
                        line: (place, cpu.instructions(), name(rounding)),
                        column: format!("{} bits", shape.bits),
                        what: format!("{of_shape}, {m} rows of x"),
                        m,
                        rows,
                        values: &values,
                    };
                    let most_rows = setting.case.rows;
                    table.check(&made, most_rows, setting.expected(rounding), &alone);
                }
            }
        }
        if interleaved && rows < 1024 {
            check_lookup(setting, &matrix);
        }
    }
}

/// The last row of an interleaved matrix, looked up.
fn check_lookup(setting: &Setting, matrix: &CpuMatrix) {
    let (last, cols) = (matrix.rows() - 1, matrix.cols());
    let mut row = vec![f32::NAN; cols];
    Cpu::with_instructions(1, None)
        .unwrap()
        .rows(matrix, &[last as u32], FloatsMut::F32(&mut row));
    for (col, (value, expected)) in row.iter().zip(&setting.weights[last * cols..]).enumerate() {
        let difference = (f64::from(*value) - expected).abs();
        assert!(
            difference <= 1e-6,
            "{:?}, column {col}: {value} for {expected}",
            setting.case
        );
    }
}

fn every_cpu() -> Vec<Cpu> {
    instruction_sets()
        .into_iter()
        .map(|name| Cpu::with_instructions(2, Some(name)).unwrap())
        .collect()
}

fn packed_matrix(interleaved: bool) -> Table {
    let (mut table, cpus) = (Table::default(), every_cpu());
    for (turn, shape) in shapes(interleaved).iter().enumerate() {
        let float_type = FLOAT_TYPES[turn % FLOAT_TYPES.len()];
        // Interleaved scales have 16 bits: what is f32 stands for such with zero points.
        let zero_points = interleaved && float_type == FloatType::F32;
        let mut setting = Setting::new(shape, float_type, zero_points);
        check_packed(&mut table, &cpus, &mut setting, shape, interleaved);
    }
    table
}

#[test]
fn rows_in_order() {
    packed_matrix(false).report("Packed weights in the format's order");
}

#[test]
fn interleaved_rows() {
    packed_matrix(true).report("Packed weights with interleaved rows");
}

#[test]
fn plain_matrices() {
    let (mut table, cpus) = (Table::default(), every_cpu());
    let cols: Vec<usize> = if whole() {
        (1..=66).chain([97, 128, 320, 1000]).collect()
    } else {
        (1..=66).step_by(5).chain([8, 63, 97, 320, 1000]).collect()
    };
    let rows: Vec<usize> = if whole() {
        (1..=17).chain([33, 100]).collect()
    } else {
        vec![1, 7, 8, 33, 100]
    };
    let m = if whole() {
        all_m()
    } else {
        vec![1, 2, 5, 8, 15, 16, 17, 32, 33]
    };
    let wide = [(64, vec![32_771], vec![1, 17]), (32_771, vec![3], vec![1, 17])];
    for (cols, rows, m) in cols.into_iter().map(|cols| (cols, rows.clone(), m.clone())).chain(wide) {
        for float_type in FLOAT_TYPES {
            check_plain(&mut table, &cpus, float_type, (&rows, cols), &m);
        }
    }
    table.report("Plain weights");
}

fn check_plain(table: &mut Table, cpus: &[Cpu], float_type: FloatType, (rows, cols): (&[usize], usize), m: &[usize]) {
    let (most_rows, most_m) = (rows[rows.len() - 1], m[m.len() - 1]);
    let mut random = Random(7 + cols as u64);
    let values: Vec<f32> = (0..most_rows * cols).map(|_| random.float()).collect();
    let (data, values) = stored(&values, float_type);
    let x = input(
        &Case {
            rows: most_rows,
            cols,
            m: most_m,
            float_type,
            ..BASE
        },
        &mut random,
    );
    let (x_in_f64, weights) = (seen_input(&x, None), seen_input(&values, None));
    let expected = reference(&x_in_f64, &weights, (most_rows, cols), |row| compared(row, most_rows));
    for &rows in rows {
        let data = data.slice(..rows * cols * float_type.size_bytes());
        let matrix = CpuMatrix::Plain(PlainMatrix {
            rows,
            cols,
            float_type,
            data,
        });
        for (place, cpu) in cpus.iter().enumerate() {
            let precision = Precision::Rounded;
            let of_shape = format!("{}, plain {float_type:?}, {rows} x {cols}", cpu.instructions());
            let alone = rows_alone(cpu, &matrix, &x, m, precision);
            let alone = alone.unwrap_or_else(|error| panic!("{of_shape}: {error}"));
            for &m in m {
                let values = multiply(cpu, &matrix, &x[..m * cols], m, precision);
                let made = Made {
                    line: (place, cpu.instructions(), "f32".to_owned()),
                    column: format!("{float_type:?}"),
                    what: format!("{of_shape}, {m} rows of x"),
                    m,
                    rows,
                    values: &values,
                };
                table.check(&made, most_rows, &expected, &alone);
            }
        }
    }
}
