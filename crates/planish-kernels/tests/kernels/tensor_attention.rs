//! Attention on tensor cores, against the formula in f64.

use planish_format::FloatType;
use planish_kernels::launch::{Attention, Launch, TensorAttention};

use crate::attention::{Input, PLAIN, Run};
use crate::data::Random;
use crate::device::{Device, Watch};

/// Rows of one or more tiles, positions that end within and at tiles.
fn problems() -> Vec<Attention> {
    let plain = Attention {
        rows: 70,
        first_position: 0,
        heads: 2,
        kv_heads: 2,
        head_dim: 64,
        value_dim: 64,
        ..PLAIN
    };
    let mut problems = vec![
        plain,
        Attention {
            rows: 9,
            first_position: 55,
            ..plain
        },
        Attention {
            rows: 33,
            first_position: 100,
            heads: 6,
            head_dim: 80,
            value_dim: 80,
            ..plain
        },
        Attention {
            rows: 64,
            window: Some(19),
            heads: 4,
            head_dim: 96,
            value_dim: 48,
            kv_heads: 1,
            ..plain
        },
        Attention {
            rows: 17,
            first_position: 3,
            window: Some(200),
            softcap: Some(1.5),
            heads: 3,
            kv_heads: 1,
            head_dim: 32,
            value_dim: 96,
            ..plain
        },
        Attention {
            rows: 20,
            sinks: true,
            head_dim: 128,
            value_dim: 128,
            heads: 4,
            kv_heads: 1,
            ..plain
        },
        Attention {
            rows: 8,
            first_position: 600,
            sinks: true,
            alibi_factor: Some(0.5),
            head_dim: 16,
            value_dim: 32,
            ..plain
        },
        Attention {
            rows: 10,
            first_position: 900,
            window: Some(700),
            head_dim: 32,
            value_dim: 16,
            ..plain
        },
        Attention {
            rows: 40,
            first_position: 30,
            head_dim: 256,
            value_dim: 256,
            heads: 2,
            kv_heads: 1,
            ..plain
        },
    ];
    for (index, problem) in problems.iter_mut().enumerate() {
        problem.value = [FloatType::BF16, FloatType::F16][index % 2];
        problem.cache = problem.value;
    }
    problems
}

fn run(problem: &Attention) -> Run {
    let tensor = TensorAttention::new(*problem).expect("a problem for tensor cores");
    Run {
        launch: tensor.launch(),
        merge: tensor.merge(),
        scratch_bytes: tensor.scratch_bytes(),
    }
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    let runs = problems().into_iter().map(|problem| run(&problem));
    runs.flat_map(|run| [Some(run.launch), run.merge]).flatten().collect()
}

/// Weights of values and results are rounded to 16 bits: the error of all values together, relative to their size.
fn check_all(watch: Watch, problems: &[Attention]) {
    let launches: Vec<Launch> = problems
        .iter()
        .map(run)
        .flat_map(|run| [Some(run.launch), run.merge])
        .flatten()
        .collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(18);
    for problem in problems {
        let input = Input::new(&mut random, problem);
        let (found, expected) = run(problem).compare(&device, problem, &input);
        let differences = found
            .iter()
            .zip(&expected)
            .map(|(&found, &expected)| (f64::from(found) - expected).powi(2));
        let size: f64 = expected.iter().map(|value| value * value).sum();
        let error = (differences.sum::<f64>() / size).sqrt();
        let bound = match problem.value {
            FloatType::F16 => 4e-4,
            _ => 3e-3,
        };
        println!("{error:.1e} of {problem:?}");
        // A NaN is not below anything.
        assert!(error < bound, "{error} of {problem:?}");
    }
}

#[test]
fn tensor_attention_equals_the_formula() {
    let problems = problems();
    assert!(problems.iter().any(|problem| run(problem).merge.is_some()));
    check_all(Watch::Memory, &problems);
}

#[test]
fn tensor_attention_has_no_races() {
    check_all(Watch::Races, &problems()[1..2]);
}

#[test]
fn other_problems_are_left_to_the_other_kernel() {
    let problem = problems()[0];
    let others = [
        Attention { rows: 1, ..problem },
        Attention {
            value: FloatType::F32,
            ..problem
        },
        Attention {
            head_dim: 72,
            ..problem
        },
        Attention {
            value_dim: 512,
            ..problem
        },
    ];
    assert!(others.into_iter().all(|other| TensorAttention::new(other).is_none()));
}
