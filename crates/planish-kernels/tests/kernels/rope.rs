//! Rotary position embedding, its angles, and keys and values put into a cache.

use planish_format::FloatType;
use planish_kernels::launch::{Launch, Rope, RopeAndAppend, RopeAngles};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::places::Scene;

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
fn angles_reference(frequencies: &[f32], problem: &RopeAngles, scene: &Scene) -> Vec<f64> {
    let row = |row: u32| {
        let (_, position) = scene.place((problem.first_row + row) as usize);
        let angle = move |&frequency: &f32| f64::from(position as f32 * frequency);
        let cosines = frequencies.iter().map(move |frequency| angle(frequency).cos());
        let sines = frequencies.iter().map(move |frequency| angle(frequency).sin());
        cosines.chain(sines).map(|value| value * f64::from(problem.factor))
    };
    (0..problem.rows).flat_map(row).collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let problems = problems().into_iter();
    let appends = rope_and_appends().into_iter().map(|problem| problem.launch());
    problems
        .flat_map(|problem| [problem.launch(), angles(&problem).launch()])
        .chain(appends)
        .collect()
}

/// Sizes for threads of 8 values and of one; heads rotated whole, in part, and not at all.
fn rope_and_appends() -> Vec<RopeAndAppend> {
    let sizes = [
        [4, 2, 64, 64, 64],
        [3, 1, 80, 40, 32],
        [2, 2, 24, 20, 12],
        [0, 1, 40, 24, 0],
        [5, 1, 7, 9, 6],
    ];
    let mut problems = Vec::new();
    for (index, [heads, kv_heads, head_dim, value_dim, rotated]) in sizes.into_iter().enumerate() {
        for neighbours in [false, true] {
            problems.push(RopeAndAppend {
                neighbours,
                value: TYPES[(index + usize::from(neighbours)) % 3],
                cache: TYPES[(2 * index + usize::from(neighbours)) % 3],
                rows: 5,
                first_row: 2,
                heads,
                kv_heads,
                head_dim,
                value_dim,
                rotated,
            });
        }
    }
    problems
}

/// Rotates the heads of rows. `angles`: (rows, rotated), cosines, then sines.
fn rotate(values: &mut [f64], width: usize, head_dim: usize, neighbours: bool, angles: &[f64]) {
    let rotated = angles.len() * width / values.len();
    let half = rotated / 2;
    for (row, values) in values.chunks_exact_mut(width).enumerate() {
        let (cosines, sines) = angles[row * rotated..][..rotated].split_at(half);
        for head in values.chunks_exact_mut(head_dim) {
            for pair in 0..half {
                let (i, j) = match neighbours {
                    true => (2 * pair, 2 * pair + 1),
                    false => (pair, pair + half),
                };
                let (a, b) = (head[i], head[j]);
                head[i] = a * cosines[pair] - b * sines[pair];
                head[j] = b * cosines[pair] + a * sines[pair];
            }
        }
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

fn check_rope_and_append(device: &Device, random: &mut Random, problem: &RopeAndAppend) {
    // Two rows of another sequence before those that are placed.
    let scene = Scene::new(random, &[(1, 63), (3, 127), (1, 0)], problem.first_row);
    let (all, first) = (scene.rows(), problem.first_row as usize);
    let [heads, kv_heads, head_dim, value_dim, rotated] = [
        problem.heads,
        problem.kv_heads,
        problem.head_dim,
        problem.value_dim,
        problem.rotated,
    ]
    .map(|size| size as usize);
    let widths = [heads * head_dim, kv_heads * head_dim, kv_heads * value_dim];
    let [queries, keys, values] = widths.map(|width| random.values(all * width, problem.value));
    let angles = random.values(all * rotated, FloatType::F32);
    let mut buffers = [
        to_bytes(&queries, problem.value),
        to_bytes(&keys, problem.value),
        to_bytes(&values, problem.value),
        to_bytes(&angles, FloatType::F32),
        scene.places(),
        poison(scene.stored_rows() * widths[1], problem.cache),
        poison(scene.stored_rows() * widths[2], problem.cache),
    ];
    device.run(&problem.launch(), &mut buffers);
    let [mut queries, mut keys, values] = [queries, keys, values].map(|values| widen(&values));
    if rotated > 0 {
        let angles = widen(&angles[first * rotated..]);
        for (values, width) in [(&mut queries, widths[0]), (&mut keys, widths[1])] {
            rotate(
                &mut values[first * width..],
                width,
                head_dim,
                problem.neighbours,
                &angles,
            );
        }
    }
    if heads > 0 {
        assert_close(
            &from_bytes(&buffers[0], problem.value),
            &queries,
            problem.value,
            problem,
        );
    }
    for (cache, width, expected) in [(&buffers[5], widths[1], &keys), (&buffers[6], widths[2], &values)] {
        let bytes = width * problem.cache.size_bytes();
        let mut others = cache.clone();
        let mut found = Vec::new();
        for row in first..all {
            let (span, position) = scene.place(row);
            let stored = scene.stored(span, position) * bytes..(scene.stored(span, position) + 1) * bytes;
            found.extend(from_bytes(&cache[stored.clone()], problem.cache));
            others[stored].fill(0xff);
        }
        assert_close(&found, &expected[first * width..], problem.cache, problem);
        assert!(
            others.iter().all(|&byte| byte == 0xff),
            "other positions stay: {problem:?}"
        );
    }
}

#[test]
fn placed_rows_are_rotated_and_lie_at_their_positions() {
    let problems = rope_and_appends();
    let launches: Vec<Launch> = problems.iter().map(RopeAndAppend::launch).collect();
    let device = Device::new(&launches, Watch::Memory);
    let mut random = Random(7);
    for problem in &problems {
        check_rope_and_append(&device, &mut random, problem);
    }
}

/// Some positions for a problem.
fn angles(problem: &Rope) -> RopeAngles {
    RopeAngles {
        rows: problem.rows,
        first_row: 1,
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
        // After a row of another sequence.
        let scene = Scene::new(&mut random, &[(2, 4090), (1, 4097), (1, 0)], 1);
        let mut buffers = [
            to_bytes(&frequencies, FloatType::F32),
            scene.places(),
            poison((1 + rows) * rotated, FloatType::F32),
        ];
        device.run(&angles(problem).launch(), &mut buffers);
        let (other, own) = buffers[2].split_at(4 * rotated);
        assert!(other.iter().all(|&byte| byte == 0xff), "other rows stay: {problem:?}");
        let found = from_bytes(own, FloatType::F32);
        let expected = angles_reference(&frequencies, &angles(problem), &scene);
        assert_close(&found, &expected, FloatType::F32, problem);

        let values = random.values(rows * problem.heads as usize * dim, problem.value);
        let mut rotation = [to_bytes(&values, problem.value), own.to_vec()];
        device.run(&problem.launch(), &mut rotation);
        let mut rotated_values = widen(&values);
        let width = problem.heads as usize * dim;
        rotate(&mut rotated_values, width, dim, problem.neighbours, &expected);
        let found = from_bytes(&rotation[0], problem.value);
        assert_close(&found, &rotated_values, problem.value, problem);
    }
}
