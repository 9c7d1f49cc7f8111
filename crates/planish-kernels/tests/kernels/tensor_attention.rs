//! Attention on tensor cores, against the formula in f64.

use planish_format::FloatType;
use planish_kernels::launch::{Attention, AttentionPlan, Launch};
use planish_ops::{AlibiRule, TemperatureTuning};

use crate::attention::{Case, Input, PLAIN, launches_of};
use crate::data::Random;
use crate::device::{Device, Watch};

/// Linear biases of positions.
const ROUNDED: AlibiRule = AlibiRule {
    factor: 0.5,
    rounded: true,
};

/// Rows of one or more tiles, positions that end within and at tiles.
fn cases() -> Vec<Case> {
    let plain = Attention {
        head_dim: 64,
        value_dim: 64,
        ..PLAIN
    };
    let cases = [
        Case::new(&[(70, 0)], plain),
        Case::new(&[(9, 55)], Attention { ..plain }),
        Case::new(
            &[(33, 100)],
            Attention {
                heads: 6,
                head_dim: 80,
                value_dim: 80,
                ..plain
            },
        ),
        Case::new(
            &[(64, 0)],
            Attention {
                window: Some(19),
                heads: 4,
                head_dim: 96,
                value_dim: 48,
                kv_heads: 1,
                ..plain
            },
        ),
        Case::new(
            &[(17, 3)],
            Attention {
                window: Some(200),
                softcap: Some(1.5),
                heads: 3,
                kv_heads: 1,
                head_dim: 32,
                value_dim: 96,
                ..plain
            },
        ),
        Case::new(
            &[(20, 0)],
            Attention {
                sinks: true,
                head_dim: 128,
                value_dim: 128,
                heads: 4,
                kv_heads: 1,
                ..plain
            },
        ),
        Case::new(
            &[(8, 600)],
            Attention {
                sinks: true,
                alibi: Some(ROUNDED),
                head_dim: 16,
                value_dim: 32,
                ..plain
            },
        ),
        Case::new(
            &[(10, 900)],
            Attention {
                window: Some(700),
                head_dim: 32,
                value_dim: 16,
                ..plain
            },
        ),
        Case::new(
            &[(40, 30)],
            Attention {
                head_dim: 256,
                value_dim: 256,
                heads: 2,
                kv_heads: 1,
                ..plain
            },
        ),
        // After rows of another sequence; the scale grows from span to span.
        Case::new(
            &[(12, 90)],
            Attention {
                first_row: 5,
                heads: 4,
                temperature_tuning: Some(TemperatureTuning { rate: 0.1, period: 30 }),
                window: Some(40),
                ..plain
            },
        ),
    ];
    let types = [FloatType::BF16, FloatType::F16];
    let typed = |(index, case): (usize, Case)| case.with_types(types[index % 2], types[index % 2]);
    cases.into_iter().enumerate().map(typed).collect()
}

fn plan(case: &Case) -> AttentionPlan {
    case.plan("tensor_attention").expect("a problem for tensor cores")
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    launches_of(cases().iter().map(plan))
}

/// Weights of values and results are rounded to 16 bits: the error of all values together, relative to their size.
fn check_all(watch: Watch, cases: &[Case]) {
    let device = Device::new(&launches_of(cases.iter().map(plan)), watch);
    let mut random = Random(18);
    for case in cases {
        let (found, expected) = Input::new(&mut random, case).compare(&device, &case.problem, &plan(case));
        let differences = found
            .iter()
            .zip(&expected)
            .map(|(&found, &expected)| (f64::from(found) - expected).powi(2));
        let size: f64 = expected.iter().map(|value| value * value).sum();
        let error = (differences.sum::<f64>() / size).sqrt();
        let bound = match case.problem.value {
            FloatType::F16 => 4e-4,
            _ => 3e-3,
        };
        println!("{error:.1e} of {case:?}");
        // A NaN is not below anything.
        assert!(error < bound, "{error} of {case:?}");
    }
}

#[test]
fn tensor_attention_equals_the_formula() {
    let cases = cases();
    assert!(cases.iter().any(|case| plan(case).steps.len() == 2));
    check_all(Watch::Memory, &cases);
}

#[test]
fn tensor_attention_has_no_races() {
    check_all(Watch::Races, &cases()[1..2]);
}

#[test]
fn other_problems_are_left_to_the_other_kernel() {
    let case = cases().swap_remove(0);
    let Case { problem, sizes } = &case;
    let others = [
        Case::new(&[(1, 0)], *problem),
        Case::new(&[(70, 0), (70, 0)], *problem),
        Case::new(
            sizes,
            Attention {
                value: FloatType::F32,
                ..*problem
            },
        ),
        Case::new(
            sizes,
            Attention {
                head_dim: 72,
                ..*problem
            },
        ),
        Case::new(
            sizes,
            Attention {
                value_dim: 512,
                ..*problem
            },
        ),
    ];
    assert!(others.iter().all(|other| other.plan("tensor_attention").is_none()));
    assert!(case.plan("tensor_attention").is_some());
}
