//! Products of large matrices in f32, in every way that they are asked for.

use planish_format::FloatType;
use planish_kernels::launch::{Added, Launch, Multiply, Tiles, Zeros};

use crate::data::{Random, from_bytes, to_bytes};
use crate::device::{Device, Watch};

/// More than a tile, and parts of one, in both directions.
fn problems() -> Vec<Multiply> {
    let plain = Multiply::new(131, 140, 20);
    vec![
        plain,
        Multiply {
            left_stride: 32,
            right_stride: 144,
            to_stride: 152,
            factor: -1.5,
            added: Added::Itself,
            ..plain
        },
        Multiply {
            left_stride: 136,
            left_transposed: true,
            rows: 132,
            depth: 7,
            added: Added::Itself,
            tiles: Tiles::Upper,
            ..plain
        },
        Multiply {
            right_stride: 24,
            right_transposed: true,
            tiles: Tiles::Lower,
            ..plain
        },
        Multiply {
            right_stride: 144,
            depth: 140,
            left_stride: 144,
            zeros: Zeros::Before,
            ..plain
        },
        Multiply {
            right_stride: 144,
            right_transposed: true,
            depth: 140,
            left_stride: 144,
            zeros: Zeros::After,
            ..plain
        },
        Multiply {
            right_stride: 24,
            right_transposed: true,
            right: FloatType::BF16,
            added: Added::Vector,
            ..plain
        },
        Multiply {
            rows: 3,
            right_stride: 24,
            right_transposed: true,
            right: FloatType::F16,
            ..plain
        },
    ]
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(Multiply::launch).collect()
}

fn check(device: &Device, random: &mut Random, problem: &Multiply) {
    let [rows, cols, depth] = [problem.rows, problem.cols, problem.depth].map(|size| size as usize);
    let strides = [problem.left_stride, problem.right_stride, problem.to_stride];
    let [left_stride, right_stride, to_stride] = strides.map(|stride| stride as usize);
    let left_lines = if problem.left_transposed { depth } else { rows };
    let right_lines = if problem.right_transposed { cols } else { depth };
    let left = random.values(left_lines * left_stride, FloatType::F32);
    let mut right = random.values(right_lines * right_stride, problem.right);
    let at_right = |term: usize, col: usize| match problem.right_transposed {
        true => col * right_stride + term,
        false => term * right_stride + col,
    };
    for col in 0..cols {
        for term in 0..depth {
            let zero = match problem.zeros {
                Zeros::None => false,
                Zeros::After => term > col,
                Zeros::Before => term < col,
            };
            if zero {
                right[at_right(term, col)] = 0.0;
            }
        }
    }
    let added = random.values(cols, FloatType::F32);
    let before = random.values(rows * to_stride, FloatType::F32);
    let mut buffers = [
        to_bytes(&left, FloatType::F32),
        to_bytes(&right, problem.right),
        to_bytes(&added, FloatType::F32),
        to_bytes(&before, FloatType::F32),
    ];
    device.run(&problem.launch(), &mut buffers);
    let found = from_bytes(&buffers[3], FloatType::F32);
    for row in 0..rows {
        for col in 0..to_stride {
            let at = row * to_stride + col;
            let computed = match problem.tiles {
                Tiles::All => true,
                Tiles::Upper => (col / 128 + 1) * 128 > row / 128 * 128,
                Tiles::Lower => (row / 128 + 1) * 128 > col / 128 * 128,
            };
            if col >= cols || !computed {
                assert_eq!(found[at], before[at], "{problem:?} at {row}, {col}");
                continue;
            }
            let at_left = |term: usize| match problem.left_transposed {
                true => term * left_stride + row,
                false => row * left_stride + term,
            };
            let terms = (0..depth).map(|term| f64::from(left[at_left(term)]) * f64::from(right[at_right(term, col)]));
            let start = match problem.added {
                Added::Nothing => 0.0,
                Added::Itself => f64::from(before[at]),
                Added::Vector => f64::from(added[col]),
            };
            let expected = start + f64::from(problem.factor) * terms.sum::<f64>();
            assert!(
                (f64::from(found[at]) - expected).abs() < 1e-5,
                "{problem:?} at {row}, {col}: {} instead of {expected}",
                found[at]
            );
        }
    }
}

#[test]
fn products_are_sums_of_products() {
    let device = Device::new(&launches(), Watch::Memory);
    let mut random = Random(21);
    for problem in problems() {
        check(&device, &mut random, &problem);
    }
}

#[test]
fn products_have_no_races() {
    let some = [problems()[1], problems()[2]];
    let launches: Vec<Launch> = some.iter().map(Multiply::launch).collect();
    let device = Device::new(&launches, Watch::Races);
    let mut random = Random(22);
    for problem in some {
        check(&device, &mut random, &problem);
    }
}
