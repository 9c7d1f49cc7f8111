//! Rotary position embedding and its angles.

use planish_format::FloatType;
use planish_ops::kernels::{Launch, Rope, RopeAngles};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};

fn problems() -> Vec<Rope> {
    let mut problems = Vec::new();
    for (index, (heads, head_dim, rotated)) in [(1, 8, 8), (3, 80, 32), (9, 64, 64)].into_iter().enumerate() {
        for neighbours in [false, true] {
            problems.push(Rope {
                neighbours,
                value: TYPES[(index + usize::from(neighbours)) % 3],
                rows: 4,
                heads,
                head_dim,
                rotated,
            });
        }
    }
    problems
}

/// `factor` times the sine and cosine of each angle. // (rows, rotated)
fn angles_reference(frequencies: &[f32], problem: &RopeAngles) -> Vec<f64> {
    let row = |row: u32| {
        let angle = move |&frequency: &f32| f64::from((problem.first_position + row) as f32 * frequency);
        let cosines = frequencies.iter().map(move |frequency| angle(frequency).cos());
        let sines = frequencies.iter().map(move |frequency| angle(frequency).sin());
        cosines.chain(sines).map(|value| value * f64::from(problem.factor))
    };
    (0..problem.rows).flat_map(row).collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let launches = problems().into_iter();
    launches
        .flat_map(|problem| [problem.launch(), angles(&problem).launch()])
        .collect()
}

/// Some positions for a problem.
fn angles(problem: &Rope) -> RopeAngles {
    RopeAngles {
        rows: problem.rows,
        first_position: 4090,
        rotated: problem.rotated,
        factor: 1.25,
    }
}

#[test]
fn rope_equals_the_formula() {
    let problems = problems();
    let launches = launches();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(4);
    for problem in &problems {
        let (rows, dim, rotated) = (
            problem.rows as usize,
            problem.head_dim as usize,
            problem.rotated as usize,
        );
        let half = rotated / 2;
        let frequencies: Vec<f32> = (0..half).map(|i| 10000f32.powf(-(i as f32) / half as f32)).collect();
        let mut buffers = [
            to_bytes(&frequencies, FloatType::F32),
            poison(rows * rotated, FloatType::F32),
        ];
        device.run(&angles(problem).launch(), &mut buffers);
        let found = from_bytes(&buffers[1], FloatType::F32);
        let expected = angles_reference(&frequencies, &angles(problem));
        assert_close(&found, &expected, FloatType::F32, problem);

        let values = random.values(rows * problem.heads as usize * dim, problem.value);
        let mut rotation = [to_bytes(&values, problem.value), buffers[1].clone()];
        device.run(&problem.launch(), &mut rotation);
        let mut rotated_values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        let width = problem.heads as usize * dim;
        for (row, values) in rotated_values.chunks_exact_mut(width).enumerate() {
            let (cosines, sines) = expected[row * rotated..][..rotated].split_at(half);
            for head in values.chunks_exact_mut(dim) {
                for pair in 0..half {
                    let (i, j) = match problem.neighbours {
                        true => (2 * pair, 2 * pair + 1),
                        false => (pair, pair + half),
                    };
                    let (a, b) = (head[i], head[j]);
                    head[i] = a * cosines[pair] - b * sines[pair];
                    head[j] = b * cosines[pair] + a * sines[pair];
                }
            }
        }
        let found = from_bytes(&rotation[0], problem.value);
        assert_close(&found, &rotated_values, problem.value, problem);
    }
}
