//! Attention by tiles, against the formula in f64.

use planish_kernels::launch::{Attention, AttentionPlan, Launch};
use planish_ops::{AlibiRule, TemperatureTuning};

use crate::attention::{Case, Input, PLAIN, launches_of};
use crate::data::{Random, TYPES, assert_close};
use crate::device::{Device, Watch};

/// Linear biases of positions.
const UNROUNDED: AlibiRule = AlibiRule {
    factor: 1.0,
    rounded: false,
};

/// Rows of one or more tiles, positions that end within and at tiles.
fn cases() -> Vec<Case> {
    let plain = Attention {
        head_dim: 64,
        value_dim: 64,
        ..PLAIN
    };
    let cases = [
        Case::new(
            &[(9, 55)],
            Attention {
                head_dim: 24,
                value_dim: 40,
                ..plain
            },
        ),
        Case::new(&[(35, 0)], plain),
        Case::new(
            &[(33, 3)],
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
                head_dim: 40,
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
            &[(12, 0)],
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
            &[(8, 60)],
            Attention {
                sinks: true,
                alibi: Some(UNROUNDED),
                head_dim: 256,
                value_dim: 256,
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
    let typed = |(index, case): (usize, Case)| case.with_types(TYPES[index % 3], TYPES[(index + index / 3) % 3]);
    cases.into_iter().enumerate().map(typed).collect()
}

fn plan(case: &Case) -> AttentionPlan {
    case.plan("attention_tiles").expect("a problem for tiles")
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    launches_of(cases().iter().map(plan))
}

fn check_all(watch: Watch, cases: &[Case]) {
    let device = Device::new(&launches_of(cases.iter().map(plan)), watch);
    let mut random = Random(19);
    for case in cases {
        let (found, expected) = Input::new(&mut random, case).compare(&device, &case.problem, &plan(case));
        assert_close(&found, &expected, case.problem.value, case);
    }
}

#[test]
fn attention_by_tiles_equals_the_formula() {
    check_all(Watch::Memory, &cases());
}

#[test]
fn attention_by_tiles_has_no_races() {
    check_all(Watch::Races, &cases()[..1]);
}
