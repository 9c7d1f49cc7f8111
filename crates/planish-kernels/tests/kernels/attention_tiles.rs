//! Attention by tiles, against the formula in f64.

use planish_format::FloatType;
use planish_kernels::launch::{Attention, Launch, TileAttention};

use crate::attention::{Input, PLAIN, reference_of};
use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};

/// Rows of one or more tiles, positions that end within and at tiles.
fn problems() -> Vec<Attention> {
    let plain = Attention {
        rows: 35,
        first_position: 0,
        heads: 2,
        kv_heads: 2,
        head_dim: 64,
        value_dim: 64,
        ..PLAIN
    };
    let mut problems = vec![
        Attention {
            rows: 9,
            first_position: 55,
            head_dim: 24,
            value_dim: 40,
            ..plain
        },
        plain,
        Attention {
            rows: 33,
            first_position: 3,
            heads: 6,
            head_dim: 80,
            value_dim: 80,
            ..plain
        },
        Attention {
            rows: 64,
            window: Some(19),
            heads: 4,
            head_dim: 40,
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
            rows: 12,
            sinks: true,
            head_dim: 128,
            value_dim: 128,
            heads: 4,
            kv_heads: 1,
            ..plain
        },
        Attention {
            rows: 8,
            first_position: 60,
            sinks: true,
            alibi_factor: Some(0.5),
            head_dim: 256,
            value_dim: 256,
            ..plain
        },
    ];
    for (index, problem) in problems.iter_mut().enumerate() {
        (problem.value, problem.cache) = (TYPES[index % 3], TYPES[(index + index / 3) % 3]);
    }
    problems
}

fn launch(problem: &Attention) -> Launch {
    TileAttention::new(*problem).expect("a problem for tiles").launch()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    problems().iter().map(launch).collect()
}

fn check_all(watch: Watch, problems: &[Attention]) {
    let launches: Vec<Launch> = problems.iter().map(launch).collect();
    let device = Device::new(&launches, watch);
    let mut random = Random(19);
    for (problem, launch) in problems.iter().zip(&launches) {
        let input = Input::new(&mut random, problem);
        let count = (problem.rows * problem.heads * problem.value_dim) as usize;
        let mut buffers = [
            to_bytes(&input.queries, problem.value),
            to_bytes(&input.keys, problem.cache),
            to_bytes(&input.values, problem.cache),
            to_bytes(&input.sinks, FloatType::F32),
            to_bytes(&input.slopes, FloatType::F32),
            poison(count, problem.value),
        ];
        device.run(launch, &mut buffers);
        let found = from_bytes(&buffers[5], problem.value);
        assert_close(&found, &reference_of(problem, &input), problem.value, problem);
    }
}

#[test]
fn attention_by_tiles_equals_the_formula() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn attention_by_tiles_has_no_races() {
    check_all(Watch::Races, &problems()[..1]);
}
