//! Attention over the caches of several sequences, against the formula in f64: every row of the table of variants.

use planish_format::FloatType;
use planish_kernels::launch::{ATTENTION_VARIANTS, Attention, AttentionBuffer, AttentionPlan, Launch};
use planish_ops::{AlibiRule, AttentionHead, TemperatureTuning, attention_reference};

use crate::data::{Random, TYPES, assert_close, from_bytes, poison, to_bytes};
use crate::device::{Device, Watch};
use crate::places::Scene;

/// Linear biases of positions.
const UNROUNDED: AlibiRule = AlibiRule {
    factor: 1.0,
    rounded: false,
};
const ROUNDED: AlibiRule = AlibiRule {
    factor: 0.5,
    rounded: true,
};

pub const PLAIN: Attention = Attention {
    value: FloatType::F32,
    cache: FloatType::F16,
    rows: 0,
    first_row: 0,
    spans: 0,
    longest: 0,
    heads: 2,
    kv_heads: 2,
    head_dim: 32,
    value_dim: 32,
    scale: 0.3,
    temperature_tuning: None,
    window: None,
    softcap: None,
    alibi: None,
    sinks: false,
};

/// A problem with its sequences.
#[derive(Clone, Debug)]
pub struct Case {
    pub problem: Attention,
    /// Rows and first position of each span.
    pub sizes: Vec<(u32, u32)>,
}

impl Case {
    pub fn new(sizes: &[(u32, u32)], problem: Attention) -> Case {
        let end = |&(rows, first): &(u32, u32)| rows + first;
        Case {
            problem: Attention {
                rows: sizes.iter().map(|&(rows, _)| rows).sum(),
                spans: sizes.len() as u32,
                longest: sizes.iter().map(end).max().unwrap_or(0),
                ..problem
            },
            sizes: sizes.to_vec(),
        }
    }

    pub fn with_types(self, value: FloatType, cache: FloatType) -> Case {
        Case {
            problem: Attention {
                value,
                cache,
                ..self.problem
            },
            ..self
        }
    }

    /// As the variant of that name computes it.
    pub fn plan(&self, name: &str) -> Option<AttentionPlan> {
        let variant = ATTENTION_VARIANTS.iter().find(|variant| variant.name == name);
        (variant.expect("a row of the table").plan)(&self.problem)
    }
}

pub fn launches_of(plans: impl IntoIterator<Item = AttentionPlan>) -> Vec<Launch> {
    let steps = plans.into_iter().flat_map(|plan| plan.steps);
    steps.map(|step| step.launch).collect()
}

fn cases() -> Vec<Case> {
    let cases = [
        Case::new(&[(1, 36)], PLAIN),
        Case::new(&[(1, 0)], PLAIN),
        Case::new(
            &[(7, 36)],
            Attention {
                heads: 6,
                head_dim: 80,
                value_dim: 80,
                ..PLAIN
            },
        ),
        Case::new(
            &[(3, 36)],
            Attention {
                heads: 8,
                head_dim: 24,
                value_dim: 40,
                window: Some(5),
                ..PLAIN
            },
        ),
        Case::new(
            &[(19, 0)],
            Attention {
                window: Some(16),
                softcap: Some(1.5),
                heads: 3,
                kv_heads: 1,
                ..PLAIN
            },
        ),
        Case::new(
            &[(1, 300)],
            Attention {
                heads: 4,
                sinks: true,
                ..PLAIN
            },
        ),
        Case::new(
            &[(2, 700)],
            Attention {
                window: Some(600),
                sinks: true,
                alibi: Some(ROUNDED),
                ..PLAIN
            },
        ),
        Case::new(
            &[(2, 700)],
            Attention {
                window: Some(600),
                sinks: true,
                heads: 8,
                ..PLAIN
            },
        ),
        Case::new(
            &[(1, 900)],
            Attention {
                heads: 3,
                kv_heads: 1,
                head_dim: 20,
                value_dim: 12,
                ..PLAIN
            },
        ),
        Case::new(
            &[(2, 36)],
            Attention {
                head_dim: 264,
                value_dim: 8,
                ..PLAIN
            },
        ),
        Case::new(
            &[(5, 36)],
            Attention {
                sinks: true,
                alibi: Some(UNROUNDED),
                head_dim: 128,
                value_dim: 128,
                heads: 8,
                ..PLAIN
            },
        ),
        // Several sequences: of one part and of more, with sinks; a whole pass and a part of it.
        Case::new(
            &[(1, 63), (1, 64), (2, 127), (1, 0), (1, 399), (1, 256)],
            Attention {
                sinks: true,
                heads: 4,
                ..PLAIN
            },
        ),
        Case::new(
            &[(1, 520), (3, 8), (1, 1100)],
            Attention {
                first_row: 3,
                heads: 4,
                window: Some(600),
                temperature_tuning: Some(TemperatureTuning { rate: 0.1, period: 7 }),
                ..PLAIN
            },
        ),
        Case::new(
            &[(1, 130); 33],
            Attention {
                heads: 8,
                kv_heads: 2,
                head_dim: 16,
                value_dim: 16,
                ..PLAIN
            },
        ),
    ];
    let typed = |(index, case): (usize, Case)| case.with_types(TYPES[index % 3], TYPES[(index + index / 3) % 3]);
    cases.into_iter().enumerate().map(typed).collect()
}

/// What the kernels read, in f32.
pub struct Input {
    pub scene: Scene,
    pub queries: Vec<f32>,   // (rows, heads, head_dim)
    pub keys: Vec<Vec<f32>>, // of each span's sequence: (positions, kv_heads, head_dim)
    pub values: Vec<Vec<f32>>,
    pub sinks: Vec<f32>,  // (heads)
    pub slopes: Vec<f32>, // (heads)
}

impl Input {
    pub fn new(random: &mut Random, case: &Case) -> Input {
        let problem = &case.problem;
        let scene = Scene::new(&mut Random(17), &case.sizes, problem.first_row);
        let (heads, kv_heads) = (problem.heads as usize, problem.kv_heads as usize);
        let (head_dim, value_dim) = (problem.head_dim as usize, problem.value_dim as usize);
        let queries = random.values(scene.rows() * heads * head_dim, problem.value);
        let mut of_positions = |width: usize| {
            let spans = scene.spans.iter();
            spans
                .map(|span| random.values(span.end_position() * width, problem.cache))
                .collect()
        };
        Input {
            queries,
            keys: of_positions(kv_heads * head_dim),
            values: of_positions(kv_heads * value_dim),
            sinks: random.values(heads, FloatType::F32),
            slopes: random.values(heads, FloatType::F32),
            scene,
        }
    }

    /// One row and head, in f64. // (value_dim)
    fn reference(&self, problem: &Attention, row: usize, head: usize) -> Vec<f64> {
        let (heads, kv_heads) = (problem.heads as usize, problem.kv_heads as usize);
        let (head_dim, value_dim) = (problem.head_dim as usize, problem.value_dim as usize);
        let kv_head = head / (heads / kv_heads);
        let (span, position) = self.scene.place(row);
        let end = position + 1;
        let begin = problem.window.map_or(0, |window| end.saturating_sub(window as usize));
        let of_head = |values: &[f32], dim: usize| -> Vec<f32> {
            let positions = values.chunks_exact(kv_heads * dim);
            positions.flat_map(|all| all[kv_head * dim..][..dim].to_vec()).collect()
        };
        attention_reference(&AttentionHead {
            query: &self.queries[(row * heads + head) * head_dim..][..head_dim],
            keys: &of_head(&self.keys[span], head_dim),
            values: &of_head(&self.values[span], value_dim),
            seen: begin..end,
            scale: problem.temperature_tuning.map_or(1.0, |tuning| tuning.factor(position)) * problem.scale,
            softcap: problem.softcap,
            alibi: problem.alibi.map(|rule| (self.slopes[head], rule)),
            sink: problem.sinks.then(|| self.sinks[head]),
        })
    }

    /// What the kernels make of it, and what the formula does. // (rows, heads, value_dim)
    pub fn compare(&self, device: &Device, problem: &Attention, plan: &AttentionPlan) -> (Vec<f32>, Vec<f64>) {
        let width = (problem.heads * problem.value_dim) as usize;
        let kv_heads = problem.kv_heads as usize;
        let scene = &self.scene;
        let pool =
            |values: &[Vec<f32>], dim: u32| to_bytes(&scene.store(values, kv_heads * dim as usize), problem.cache);
        use AttentionBuffer::{Keys, Output, Partials, Places, Queries, Sinks, Slopes, Tables, Values};
        let mut all = [
            (Queries, to_bytes(&self.queries, problem.value)),
            (Keys, pool(&self.keys, problem.head_dim)),
            (Values, pool(&self.values, problem.value_dim)),
            (Sinks, to_bytes(&self.sinks, FloatType::F32)),
            (Slopes, to_bytes(&self.slopes, FloatType::F32)),
            (Places, scene.places()),
            (Tables, scene.tables()),
            (Partials, vec![0xff; plan.scratch_bytes]),
            (Output, poison(scene.rows() * width, problem.value)),
        ];
        for step in &plan.steps {
            let place = |buffer: &AttentionBuffer| all.iter().position(|(name, _)| name == buffer).expect("a buffer");
            let places: Vec<usize> = step.buffers.iter().map(place).collect();
            let mut buffers: Vec<Vec<u8>> = places.iter().map(|&place| all[place].1.clone()).collect();
            device.run(&step.launch, &mut buffers);
            places
                .iter()
                .zip(buffers)
                .for_each(|(&place, buffer)| all[place].1 = buffer);
        }
        let (other, own) = all[8]
            .1
            .split_at(problem.first_row as usize * width * problem.value.size_bytes());
        assert!(other.iter().all(|&byte| byte == 0xff), "other rows stay: {problem:?}");
        let found = from_bytes(own, problem.value);
        let rows = problem.first_row as usize..scene.rows();
        let heads = |row| (0..problem.heads as usize).flat_map(move |head| self.reference(problem, row, head));
        (found, rows.flat_map(heads).collect())
    }
}

/// What these tests run.
pub fn launches() -> Vec<Launch> {
    launches_of(cases().iter().filter_map(|case| case.plan("attention")))
}

fn check_all(watch: Watch, cases: &[Case]) {
    let plans: Vec<AttentionPlan> = cases.iter().filter_map(|case| case.plan("attention")).collect();
    assert!(plans.iter().any(|plan| plan.steps.len() == 2));
    let device = Device::new(&launches_of(plans.clone()), watch);
    let mut random = Random(8);
    for (case, plan) in cases.iter().zip(&plans) {
        let (found, expected) = Input::new(&mut random, case).compare(&device, &case.problem, plan);
        assert_close(&found, &expected, case.problem.value, case);
    }
}

#[test]
fn attention_equals_the_formula() {
    check_all(Watch::Memory, &cases());
}

#[test]
fn attention_has_no_races() {
    let cases = cases();
    check_all(Watch::Races, &[cases[4].clone(), cases[5].clone(), cases[11].clone()]);
}

/// With as many rows, whatever their lengths, a row is the same bits.
#[test]
fn a_row_does_not_depend_on_the_lengths_of_others() {
    let problem = Attention {
        heads: 4,
        kv_heads: 1,
        ..PLAIN
    };
    let cases = [[290, 3], [290, 900], [290, 0]].map(|firsts| Case::new(&firsts.map(|first| (1, first)), problem));
    let plans = cases
        .each_ref()
        .map(|case| case.plan("attention").expect("any problem"));
    let device = Device::new(&launches_of(plans.clone()), Watch::Memory);
    let width = (problem.heads * problem.value_dim) as usize;
    let found = cases.iter().zip(&plans).map(|(case, plan)| {
        let mut input = Input::new(&mut Random(9), case);
        // The first sequence is the same in all.
        let mut random = Random(10);
        input.keys[0].iter_mut().for_each(|key| *key = random.value());
        input.values[0].iter_mut().for_each(|value| *value = random.value());
        let queries = problem.heads as usize * problem.head_dim as usize;
        input.queries[..queries]
            .iter_mut()
            .for_each(|query| *query = random.value());
        input.compare(&device, &case.problem, plan).0[..width].to_vec()
    });
    let found: Vec<Vec<f32>> = found.collect();
    assert!(found[1..].iter().all(|row| *row == found[0]));
}
