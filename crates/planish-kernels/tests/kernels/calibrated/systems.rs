//! Systems of least squares for scales and biases.

use planish_format::FloatType;
use planish_kernels::launch::{CodeRows, Launch, RowStep};

use super::{COLS, F32, GROUP, GROUPS, ROW_STEPS, ROWS, SIZE, f32s, f64s, read_f64s, rows, squares};
use crate::data::{Random, from_bytes, poison, round_to};
use crate::device::{Device, Watch};

/// A row's system from its terms, solved, beside elimination in f64; some threads of the panels have nothing to do.
#[test]
fn systems_are_those_of_least_squares() {
    let mut random = Random(36);
    let squares = squares(&mut random, COLS);
    let centred = random.values(ROWS * COLS, F32);
    let products = random.values(ROWS * COLS, F32);
    let at = |row: usize, col: usize| f64::from(squares[row * COLS + col]);
    let mut group_squares = vec![0.0; GROUPS * GROUPS];
    for row in 0..COLS {
        for col in 0..COLS {
            group_squares[row / GROUP * GROUPS + col / GROUP] += at(row, col);
        }
    }
    let launches: Vec<Launch> = ROW_STEPS.map(|step| rows(step).launch()).to_vec();
    for watch in [Watch::Memory, Watch::Races] {
        let device = Device::new(&launches, watch);
        let mut systems = vec![0xff; 8 * ROWS * SIZE * (SIZE + 1)];
        for index in 0..GROUPS {
            // Codes of the group, centred, times H.
            let of_group: Vec<f32> = (0..ROWS * COLS)
                .map(|at| {
                    let own = &centred[at / COLS * COLS..][index * GROUP..(index + 1) * GROUP];
                    let columns = (0..GROUP).map(|term| squares[(index * GROUP + term) * COLS + at % COLS]);
                    own.iter().zip(columns).map(|(a, b)| a * b).sum()
                })
                .collect();
            let step = CodeRows {
                index: index as u32,
                ..rows(RowStep::Terms)
            };
            let mut buffers = [f32s(&of_group), f32s(&centred), systems];
            device.run(&step.launch(), &mut buffers);
            let [_, _, found] = buffers;
            systems = found;
        }
        let mut buffers = [f32s(&products), f32s(&centred), systems];
        device.run(&rows(RowStep::Sides).launch(), &mut buffers);
        let [_, _, systems] = buffers;
        let mut buffers = [systems, f64s(&group_squares), vec![0xff; 8 * ROWS * SIZE]];
        device.run(&rows(RowStep::Solve).launch(), &mut buffers);
        let changes = read_f64s(&buffers[2]);
        for row in 0..ROWS {
            let column = |index: usize| -> Vec<f64> {
                (0..COLS)
                    .map(|col| match (col / GROUP == index % GROUPS, index < GROUPS) {
                        (true, true) => f64::from(centred[row * COLS + col]),
                        (true, false) => 1.0,
                        (false, _) => 0.0,
                    })
                    .collect()
            };
            let columns: Vec<Vec<f64>> = (0..SIZE).map(column).collect();
            let solution = &changes[row * SIZE..][..SIZE];
            for (index, own) in columns.iter().enumerate() {
                let times = |other: &[f64]| -> f64 {
                    let pairs = (0..COLS * COLS)
                        .map(|pair| own[pair / COLS] * at(pair / COLS, pair % COLS) * other[pair % COLS]);
                    pairs.sum()
                };
                let sum: f64 = columns
                    .iter()
                    .zip(solution)
                    .enumerate()
                    .map(|(other, (column, solution))| {
                        let ridge = if other == index { 1.0 + f64::from(1e-3f32) } else { 1.0 };
                        ridge * times(column) * solution
                    })
                    .sum();
                let side: f64 = own
                    .iter()
                    .zip(&products[row * COLS..][..COLS])
                    .map(|(own, product)| -own * f64::from(*product))
                    .sum();
                assert!(
                    (sum - side).abs() < 1e-3,
                    "equation {index} of row {row}: {sum} instead of {side}"
                );
            }
        }
        let (scales, biases) = (random.values(ROWS * GROUPS, F32), random.values(ROWS * GROUPS, F32));
        let means = random.values(ROWS * GROUPS, F32);
        let mut wrong = changes.clone();
        wrong[1] = f64::NAN;
        let mut buffers = [
            f32s(&scales),
            f32s(&biases),
            f32s(&means),
            f64s(&wrong),
            poison(ROWS * GROUPS, F32),
            poison(ROWS * GROUPS, F32),
        ];
        device.run(&rows(RowStep::Change).launch(), &mut buffers);
        let [new_scales, new_biases] = [4, 5].map(|index| from_bytes(&buffers[index], F32));
        for group in 0..ROWS * GROUPS {
            let own = &wrong[group / GROUPS * SIZE..];
            let (before, mean) = (f64::from(scales[group]), f64::from(means[group]));
            if own[group % GROUPS].is_nan() {
                assert_eq!((new_scales[group], new_biases[group]), (scales[group], biases[group]));
                continue;
            }
            let scale = round_to((before + own[group % GROUPS]) as f32, FloatType::BF16);
            let bias =
                f64::from(biases[group]) + before * mean + own[GROUPS + group % GROUPS] - f64::from(scale) * mean;
            assert_eq!(new_scales[group], scale);
            assert_eq!(new_biases[group], round_to(bias as f32, FloatType::BF16));
        }
    }
}
