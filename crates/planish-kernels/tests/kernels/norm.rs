//! Norms, with and without residual, weight and bias.

use planish_format::FloatType;
use planish_kernels::launch::{Launch, Norm};
use planish_ops::{NormKind, norm_reference};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};

fn problems() -> Vec<Norm> {
    let mut problems = Vec::new();
    for (index, (cols, width, size)) in [
        (7, 7, 7),
        (288, 288, 288),
        (96, 24, 48),
        (1031, 1031, 1031),
        (4104, 4104, 4104),
    ]
    .into_iter()
    .enumerate()
    {
        for (turn, kind) in [NormKind::Rms, NormKind::Layer, NormKind::Identity]
            .into_iter()
            .enumerate()
        {
            for flags in 0..4 {
                problems.push(Norm {
                    kind,
                    value: TYPES[(index + turn + flags) % 3],
                    rows: 3,
                    first_row: flags as u32 % 2,
                    cols,
                    width,
                    size,
                    residual: (flags % 2 == 0).then_some(0.5),
                    weight: flags != 1,
                    bias: flags > 1,
                    epsilon: 1e-3,
                    in_place: flags == 3,
                });
            }
        }
    }
    problems
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(Norm::launch).collect()
}

fn check(device: &Device, random: &mut Random, problem: &Norm) {
    let (cols, size) = (problem.cols as usize, problem.size as usize);
    let begin = problem.first_row as usize * cols;
    let count = problem.rows as usize * cols;
    let total = begin + count;
    let hidden = random.values(total, problem.value);
    let residual = random.values(total, problem.value);
    let (weight, bias) = (random.values(size, FloatType::F32), random.values(size, FloatType::F32));
    let mut buffers = [
        to_bytes(&hidden, problem.value),
        to_bytes(&residual, problem.value),
        to_bytes(&weight, FloatType::F32),
        to_bytes(&bias, FloatType::F32),
        poison(count, problem.value),
    ];
    device.run(&problem.launch(), &mut buffers);

    let factor = problem.residual.unwrap_or(0.0);
    let summed: Vec<f64> = hidden[begin..]
        .iter()
        .zip(&residual[begin..])
        .map(|(&hidden, &residual)| f64::from(hidden) + f64::from(factor) * f64::from(residual))
        .collect();
    let left = from_bytes(&buffers[0], problem.value);
    if !problem.in_place {
        assert_close(&left[begin..], &summed, problem.value, problem);
    }
    assert_eq!(left[..begin], hidden[..begin], "rows before the first: {problem:?}");

    // Normalized is what is stored, so the reference starts from that too.
    let rounded: Vec<f32> = match problem.in_place {
        true => from_bytes(
            &to_bytes(
                &summed.iter().map(|&value| value as f32).collect::<Vec<_>>(),
                problem.value,
            ),
            problem.value,
        ),
        false => left[begin..].to_vec(),
    };
    let normalized = rounded
        .chunks_exact(problem.width as usize)
        .flat_map(|values| norm_reference(problem.kind, values, problem.epsilon));
    let expected: Vec<f64> = normalized
        .enumerate()
        .map(|(index, value)| {
            let index = index % cols % size;
            let scaled = if problem.weight {
                value * f64::from(weight[index])
            } else {
                value
            };
            if problem.bias {
                scaled + f64::from(bias[index])
            } else {
                scaled
            }
        })
        .collect();
    let found = match problem.in_place {
        true => left[begin..].to_vec(),
        false => from_bytes(&buffers[4], problem.value),
    };
    assert_close(&found, &expected, problem.value, problem);
}

fn check_all(watch: Watch, problems: &[Norm]) {
    let launches: Vec<Launch> = problems.iter().map(Norm::launch).collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(3);
    problems.iter().for_each(|problem| check(&device, &mut random, problem));
}

#[test]
fn norms_equal_the_reference() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn norms_have_no_races() {
    check_all(Watch::Races, &problems()[8..]);
}
