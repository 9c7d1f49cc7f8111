//! Attention over a cache, against the formula in f64.

use planish_format::FloatType;
use planish_kernels::launch::{Attention, Launch};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, round_to, to_bytes};
use crate::device::{Device, Watch};

pub const PLAIN: Attention = Attention {
    value: FloatType::F32,
    cache: FloatType::F16,
    rows: 1,
    first_position: 36,
    heads: 2,
    kv_heads: 2,
    head_dim: 32,
    value_dim: 32,
    scale: 0.3,
    window: None,
    softcap: None,
    alibi_factor: None,
    sinks: false,
};

fn problems() -> Vec<Attention> {
    let mut problems = vec![
        PLAIN,
        Attention {
            first_position: 0,
            ..PLAIN
        },
        Attention {
            rows: 7,
            heads: 6,
            head_dim: 80,
            value_dim: 80,
            ..PLAIN
        },
        Attention {
            rows: 3,
            heads: 8,
            head_dim: 24,
            value_dim: 40,
            window: Some(5),
            ..PLAIN
        },
        Attention {
            rows: 19,
            first_position: 0,
            window: Some(16),
            softcap: Some(1.5),
            heads: 3,
            kv_heads: 1,
            ..PLAIN
        },
        Attention {
            first_position: 300,
            heads: 4,
            sinks: true,
            ..PLAIN
        },
        Attention {
            rows: 2,
            first_position: 700,
            window: Some(600),
            sinks: true,
            alibi_factor: Some(0.5),
            ..PLAIN
        },
        Attention {
            rows: 2,
            first_position: 700,
            window: Some(600),
            sinks: true,
            heads: 8,
            ..PLAIN
        },
        Attention {
            first_position: 900,
            heads: 3,
            kv_heads: 1,
            head_dim: 20,
            value_dim: 12,
            ..PLAIN
        },
        Attention {
            rows: 2,
            head_dim: 264,
            value_dim: 8,
            ..PLAIN
        },
        Attention {
            rows: 5,
            sinks: true,
            alibi_factor: Some(1.0),
            head_dim: 128,
            value_dim: 128,
            heads: 8,
            ..PLAIN
        },
    ];
    for (index, problem) in problems.iter_mut().enumerate() {
        (problem.value, problem.cache) = (TYPES[index % 3], TYPES[(index + index / 3) % 3]);
    }
    problems
}

/// What the kernels read, in f32.
pub struct Input {
    pub queries: Vec<f32>, // (rows, heads, head_dim)
    pub keys: Vec<f32>,    // (positions, kv_heads, head_dim)
    pub values: Vec<f32>,  // (positions, kv_heads, value_dim)
    pub sinks: Vec<f32>,   // (heads)
    pub slopes: Vec<f32>,  // (heads)
}

impl Input {
    pub fn new(random: &mut Random, problem: &Attention) -> Input {
        let positions = (problem.first_position + problem.rows) as usize;
        let (heads, kv_heads) = (problem.heads as usize, problem.kv_heads as usize);
        let (head_dim, value_dim) = (problem.head_dim as usize, problem.value_dim as usize);
        Input {
            queries: random.values(problem.rows as usize * heads * head_dim, problem.value),
            keys: random.values(positions * kv_heads * head_dim, problem.cache),
            values: random.values(positions * kv_heads * value_dim, problem.cache),
            sinks: random.values(heads, FloatType::F32),
            slopes: random.values(heads, FloatType::F32),
        }
    }
}

/// One row and head, in f64. // (value_dim)
fn reference(problem: &Attention, input: &Input, row: usize, head: usize) -> Vec<f64> {
    let (heads, kv_heads) = (problem.heads as usize, problem.kv_heads as usize);
    let (head_dim, value_dim) = (problem.head_dim as usize, problem.value_dim as usize);
    let kv_head = head / (heads / kv_heads);
    let end = problem.first_position as usize + row + 1;
    let begin = problem.window.map_or(0, |window| end.saturating_sub(window as usize));
    let query = &input.queries[(row * heads + head) * head_dim..][..head_dim];
    let score = |position: usize| {
        let key = &input.keys[(position * kv_heads + kv_head) * head_dim..][..head_dim];
        let products = query.iter().zip(key).map(|(&a, &b)| f64::from(a) * f64::from(b));
        let mut score = products.sum::<f64>() * f64::from(problem.scale);
        if let Some(cap) = problem.softcap.map(f64::from) {
            score = cap * (score / cap).tanh();
        }
        if let Some(factor) = problem.alibi_factor {
            let position = round_to(position as f32, FloatType::BF16);
            score += f64::from(factor) * f64::from(round_to(input.slopes[head] * position, FloatType::BF16));
        }
        score
    };
    let scores: Vec<f64> = (begin..end).map(score).collect();
    let sink = if problem.sinks {
        f64::from(input.sinks[head])
    } else {
        f64::NEG_INFINITY
    };
    let maximum = scores.iter().copied().fold(sink, f64::max);
    let total: f64 = scores.iter().map(|score| (score - maximum).exp()).sum::<f64>() + (sink - maximum).exp();
    let mut output = vec![0.0; value_dim];
    for (position, score) in (begin..end).zip(scores) {
        let value = &input.values[(position * kv_heads + kv_head) * value_dim..][..value_dim];
        let weight = (score - maximum).exp() / total;
        output
            .iter_mut()
            .zip(value)
            .for_each(|(sum, &value)| *sum += weight * f64::from(value));
    }
    output
}

/// All rows and heads, in f64. // (rows, heads, value_dim)
pub fn reference_of(problem: &Attention, input: &Input) -> Vec<f64> {
    let rows = 0..problem.rows as usize;
    let heads = |row| (0..problem.heads as usize).flat_map(move |head| reference(problem, input, row, head));
    rows.flat_map(heads).collect()
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    launches_of(&problems())
}

fn launches_of(problems: &[Attention]) -> Vec<Launch> {
    let launches = problems
        .iter()
        .flat_map(|problem| [Some(problem.launch()), problem.merge()]);
    launches.flatten().collect()
}

/// The kernels of one problem, with the bytes of their partials.
pub struct Run {
    pub launch: Launch,
    pub merge: Option<Launch>,
    pub scratch_bytes: usize,
}

impl Run {
    /// What the kernels make of the input, and what the formula does. // (rows, heads, value_dim)
    pub fn compare(&self, device: &Device, problem: &Attention, input: &Input) -> (Vec<f32>, Vec<f64>) {
        let count = problem.rows as usize * problem.heads as usize * problem.value_dim as usize;
        let mut buffers = [
            to_bytes(&input.queries, problem.value),
            to_bytes(&input.keys, problem.cache),
            to_bytes(&input.values, problem.cache),
            to_bytes(&input.sinks, FloatType::F32),
            to_bytes(&input.slopes, FloatType::F32),
            vec![0xff; self.scratch_bytes],
            poison(count, problem.value),
        ];
        device.run(&self.launch, &mut buffers);
        let [_, _, _, sinks, _, partials, output] = buffers;
        let mut merged = [partials, sinks, output];
        if let Some(merge) = &self.merge {
            device.run(merge, &mut merged);
        }
        (from_bytes(&merged[2], problem.value), reference_of(problem, input))
    }
}

fn check(device: &Device, random: &mut Random, problem: &Attention) {
    let run = Run {
        launch: problem.launch(),
        merge: problem.merge(),
        scratch_bytes: problem.scratch_bytes(),
    };
    let (found, expected) = run.compare(device, problem, &Input::new(random, problem));
    assert_close(&found, &expected, problem.value, problem);
}

fn check_all(watch: Watch, problems: &[Attention]) {
    assert!(problems.iter().any(|problem| problem.merge().is_some()));
    let launches = launches_of(problems);
    let device = Device::new(&launches, watch);
    let mut random = Random(8);
    problems.iter().for_each(|problem| check(&device, &mut random, problem));
}

#[test]
fn attention_equals_the_formula() {
    check_all(Watch::Memory, &problems());
}

#[test]
fn attention_has_no_races() {
    check_all(Watch::Races, &problems()[4..6]);
}
