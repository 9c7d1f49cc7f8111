//! What surrounds the products, on the sizes of an 8B model: each beside the time that its bytes take at the speed of reading.

use planish_format::{Encoder, FloatType, Packing};
use planish_gpu::Queue;
use planish_kernels::launch::{
    ATTENTION_VARIANTS, Add, Argmax, Attention, AttentionBuffer, AttentionPlan, BLOCK, Features, Gate, Launch, Norm,
    Quantize, Rope, RopeAndAppend, Rows, WeightKind, settings_of,
};
use planish_ops::{Activation, NormKind};
use serde_json::{Value, json};

use super::Choice;
use super::measure::{Bench, Step, Work};

const HIDDEN: u32 = 4096;
const INNER: u32 = 14336;
const HEADS: u32 = 32;
const KV_HEADS: u32 = 8;
const HEAD_DIM: u32 = 128;
const VOCABULARY: u32 = 128_256;
/// Rows of a decode and of a prefill.
const ROWS: [u32; 2] = [1, 2048];
/// Positions that the row of a decode sees.
const DEPTHS: [u32; 3] = [512, 4096, 32_768];
const PREFILLS: [u32; 2] = [512, 2048];
/// Sequences of a batch, and positions that each row of it sees.
const BATCHES: [[u32; 2]; 4] = [[8, 640], [32, 640], [64, 128], [64, 640]];
/// Rows whose tokens are chosen together.
const CHOICES: [u32; 2] = [1, 64];

/// One measurement.
struct Case {
    name: &'static str,
    /// Sizes, for people.
    sizes: String,
    work: Work,
    /// The fewest that must move: each input read once, each output written once.
    floor_bytes: usize,
    /// Multiplications and additions, where they may bound the time.
    operations: f64,
}

impl Case {
    /// One launch over buffers of its own, all of which it reads or writes once.
    fn single(name: &'static str, sizes: String, launch: Launch, buffers: Vec<usize>) -> Case {
        let floor_bytes = buffers.iter().sum();
        let step = Step {
            launch,
            buffers: (0..buffers.len()).collect(),
        };
        Case {
            name,
            sizes,
            work: Work {
                buffers,
                fixed: Vec::new(),
                steps: vec![step],
            },
            floor_bytes,
            operations: 0.0,
        }
    }
}

pub fn measure<Q: Queue>(bench: &Bench<Q>, choice: &Choice) -> anyhow::Result<Vec<Value>> {
    let mut measured = Vec::new();
    for case in cases(choice, &bench.queue.features()) {
        if !choice.takes(case.name) {
            continue;
        }
        let Some(time) = bench.time(&case.work)? else { continue };
        let seconds = time.as_secs_f64();
        let gb_per_s = case.floor_bytes as f64 / seconds / 1e9;
        measured.push(json!({
            "kernel": case.name,
            "sizes": case.sizes,
            "us": seconds * 1e6,
            "floor_us": case.floor_bytes as f64 / bench.read_gb_per_s / 1e3,
            "gb_per_s": gb_per_s,
            "of_read_speed": gb_per_s / bench.read_gb_per_s,
            "tflop_per_s": case.operations / seconds / 1e12,
        }));
    }
    Ok(measured)
}

fn cases(choice: &Choice, features: &Features) -> Vec<Case> {
    let value = choice.value;
    let mut cases = Vec::new();
    for rows in ROWS {
        cases.extend([
            norm(value, rows),
            rope(value, rows),
            rope_and_append(value, rows),
            gate(value, rows),
            add(value, rows),
        ]);
    }
    cases.extend(DEPTHS.map(|positions| {
        let problem = query(value, [1, 1], positions);
        attention("attention, decode", &problem, &problem.plan(features))
    }));
    cases.extend(BATCHES.map(|[sequences, positions]| {
        let problem = query(value, [sequences, 1], positions);
        attention("attention, batch", &problem, &problem.plan(features))
    }));
    for rows in PREFILLS {
        let problem = query(value, [1, rows], rows);
        let running = ATTENTION_VARIANTS.iter().filter(|variant| (variant.runs_on)(features));
        cases.extend(running.filter_map(|variant| {
            let name = if variant.name == "attention" {
                "attention, prefill"
            } else {
                variant.name
            };
            Some(attention(name, &problem, &(variant.plan)(&problem)?))
        }));
    }
    for &packing in &choice.packings {
        cases.extend(ROWS.map(|rows| embed(value, packing, rows)));
        cases.extend([dequantize(value, packing), quantize(packing)]);
    }
    cases.extend(CHOICES.map(argmax));
    cases
}

/// Bytes of so many values.
fn bytes(count: u32, float_type: FloatType) -> usize {
    count as usize * float_type.size_bytes()
}

fn norm(value: FloatType, rows: u32) -> Case {
    let launch = Norm {
        kind: NormKind::Rms,
        value,
        rows,
        first_row: 0,
        cols: HIDDEN,
        width: HIDDEN,
        size: HIDDEN,
        residual: Some(1.0),
        weight: true,
        bias: false,
        epsilon: 1e-5,
        in_place: false,
    }
    .launch();
    let (all, vector) = (bytes(rows * HIDDEN, value), bytes(HIDDEN, FloatType::F32));
    let case = Case::single(
        "norm",
        format!("{rows} x {HIDDEN}"),
        launch,
        vec![all, all, vector, 16, all],
    );
    // The sum is written too.
    Case {
        floor_bytes: 4 * all + vector,
        ..case
    }
}

fn rope(value: FloatType, rows: u32) -> Case {
    let launch = Rope {
        neighbours: false,
        value,
        rows,
        heads: HEADS,
        head_dim: HEAD_DIM,
        rotated: HEAD_DIM,
    }
    .launch();
    let (all, angles) = (
        bytes(rows * HEADS * HEAD_DIM, value),
        bytes(rows * HEAD_DIM, FloatType::F32),
    );
    let case = Case::single(
        "rope",
        format!("{rows} x {HEADS} heads of {HEAD_DIM}"),
        launch,
        vec![all, angles],
    );
    Case {
        floor_bytes: 2 * all + angles,
        ..case
    }
}

/// Queries rotated, keys rotated and put into the cache with the values.
fn rope_and_append(value: FloatType, rows: u32) -> Case {
    let launch = RopeAndAppend {
        neighbours: false,
        value,
        cache: value,
        rows,
        first_row: 0,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        value_dim: HEAD_DIM,
        rotated: HEAD_DIM,
    }
    .launch();
    let (queries, keys) = (
        bytes(rows * HEADS * HEAD_DIM, value),
        bytes(rows * KV_HEADS * HEAD_DIM, value),
    );
    let angles = bytes(rows * HEAD_DIM, FloatType::F32);
    let cache = keys.next_multiple_of(bytes(BLOCK as u32 * KV_HEADS * HEAD_DIM, value));
    let step = Step {
        launch,
        buffers: vec![0, 1, 2, 3, 6, 4, 5],
    };
    let [places, _] = places([1, rows], rows);
    Case {
        name: "rope_and_append",
        sizes: format!("{rows} x {HEADS} + 2 x {KV_HEADS} heads of {HEAD_DIM}"),
        work: Work {
            buffers: vec![queries, keys, keys, angles, cache, cache],
            fixed: vec![places],
            steps: vec![step],
        },
        floor_bytes: 2 * queries + 4 * keys + angles,
        operations: 0.0,
    }
}

/// Places of the last rows of sequences of so many positions, whose blocks follow one another, and the tables of these.
fn places([sequences, rows]: [u32; 2], positions: u32) -> [Vec<u32>; 2] {
    let block = BLOCK as u32;
    let stride = positions.div_ceil(block);
    let of_rows = (0..sequences).flat_map(|slot| (positions - rows..positions).map(move |position| (slot, position)));
    let words = of_rows.flat_map(|(slot, position)| {
        let table = slot * stride;
        [slot, position, table * block + position, table]
    });
    [words.collect(), (0..sequences * stride).collect()]
}

fn gate(value: FloatType, rows: u32) -> Case {
    let launch = Gate {
        activation: Activation::Silu,
        value,
        count: rows * INNER,
        gated: true,
    }
    .launch();
    let all = bytes(rows * INNER, value);
    let case = Case::single("gate", format!("{rows} x {INNER}"), launch, vec![all; 2]);
    Case {
        floor_bytes: 3 * all,
        ..case
    }
}

fn add(value: FloatType, rows: u32) -> Case {
    let launch = Add {
        value,
        count: rows * HIDDEN,
        factor: 1.0,
    }
    .launch();
    let all = bytes(rows * HIDDEN, value);
    let case = Case::single("add", format!("{rows} x {HIDDEN}"), launch, vec![all; 2]);
    Case {
        floor_bytes: 3 * all,
        ..case
    }
}

/// The last rows of sequences of so many positions.
fn query(value: FloatType, [sequences, rows]: [u32; 2], positions: u32) -> Attention {
    Attention {
        value,
        cache: value,
        rows: sequences * rows,
        first_row: 0,
        spans: sequences,
        longest: positions,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        value_dim: HEAD_DIM,
        scale: 0.088,
        temperature_tuning: None,
        window: None,
        softcap: None,
        alibi: None,
        sinks: false,
    }
}

/// The join of split positions is part of it.
fn attention(name: &'static str, problem: &Attention, plan: &AttentionPlan) -> Case {
    use AttentionBuffer::{Keys, Output, Partials, Places, Queries, Sinks, Slopes, Tables, Values};
    const ORDER: [AttentionBuffer; 9] = [Queries, Keys, Values, Sinks, Slopes, Partials, Output, Places, Tables];
    let (sequences, positions) = (problem.spans, problem.longest);
    let rows = problem.rows / sequences;
    let queries = bytes(problem.rows * HEADS * HEAD_DIM, problem.value);
    let width = bytes(KV_HEADS * HEAD_DIM, problem.cache);
    let pool = sequences as usize * (positions as usize).next_multiple_of(BLOCK) * width;
    let cache = (sequences * positions) as usize * width;
    let vector = bytes(HEADS, FloatType::F32);
    let number = |buffer: &AttentionBuffer| ORDER.iter().position(|other| other == buffer);
    let steps = plan.steps.iter().map(|step| Step {
        launch: step.launch.clone(),
        buffers: step.buffers.iter().filter_map(number).collect(),
    });
    let before = f64::from(positions - rows);
    let seen = f64::from(problem.rows) * (before + f64::from(rows + 1) / 2.0);
    Case {
        name,
        sizes: format!("{} rows, {positions} positions", problem.rows),
        work: Work {
            buffers: vec![queries, pool, pool, vector, vector, plan.scratch_bytes, queries],
            fixed: places([sequences, rows], positions).into(),
            steps: steps.collect(),
        },
        floor_bytes: 2 * (queries + cache),
        operations: 4.0 * seen * f64::from(HEADS * HEAD_DIM),
    }
}

/// Bytes of a packed weight: codes, scales, biases.
fn packed(packing: Packing, rows: u32, cols: u32) -> [usize; 3] {
    let scales = bytes(rows * (cols / packing.group() as u32), FloatType::BF16);
    [(rows * (cols / 8)) as usize * packing.bits() as usize, scales, scales]
}

fn table(value: FloatType, packing: Packing, rows: u32, cols: u32) -> Rows {
    Rows {
        weight: WeightKind {
            packing: Some(packing),
            float_type: FloatType::BF16,
        },
        value,
        rows,
        cols,
        factor: 1.0,
    }
}

fn embed(value: FloatType, packing: Packing, rows: u32) -> Case {
    let launch = table(value, packing, VOCABULARY, HIDDEN).embed(rows);
    let [codes, scales, biases] = packed(packing, VOCABULARY, HIDDEN);
    let output = bytes(rows * HIDDEN, value);
    let sizes = format!("{rows} of {VOCABULARY} x {HIDDEN}, {} bits", packing.bits());
    let case = Case::single(
        "embed",
        sizes,
        launch,
        vec![codes, scales, biases, 4 * rows as usize, output],
    );
    Case {
        floor_bytes: packed(packing, rows, HIDDEN).iter().sum::<usize>() + output,
        ..case
    }
}

fn dequantize(value: FloatType, packing: Packing) -> Case {
    let launch = table(value, packing, INNER, HIDDEN).dequantize();
    let mut buffers = packed(packing, INNER, HIDDEN).to_vec();
    buffers.push(bytes(INNER * HIDDEN, value));
    let sizes = format!("{INNER} x {HIDDEN}, {} bits", packing.bits());
    Case::single("dequantize", sizes, launch, buffers)
}

fn quantize(packing: Packing) -> Case {
    let launch = Quantize {
        packing,
        encoder: Encoder::Transformers,
        value: FloatType::BF16,
        scale: FloatType::BF16,
        rows: INNER,
        cols: HIDDEN,
    }
    .launch();
    let mut buffers = vec![bytes(INNER * HIDDEN, FloatType::BF16)];
    buffers.extend(packed(packing, INNER, HIDDEN));
    let sizes = format!("{INNER} x {HIDDEN}, {} bits", packing.bits());
    Case::single("quantize", sizes, launch, buffers)
}

/// The likeliest tokens of rows.
fn argmax(rows: u32) -> Case {
    let argmax = Argmax {
        value: FloatType::F32,
        rows,
        cols: VOCABULARY,
    };
    let logits = bytes(rows * VOCABULARY, FloatType::F32);
    let steps = vec![
        Step {
            launch: argmax.parts(),
            buffers: vec![0, 1, 2],
        },
        Step {
            launch: argmax.tokens(),
            buffers: vec![1, 2, 5, 3, 4],
        },
    ];
    let settings = (0..rows).flat_map(|row| settings_of(row, planish_ops::Choice::Likeliest));
    let tokens = 4 * rows as usize;
    Case {
        name: "argmax",
        sizes: format!("{rows} x {VOCABULARY}"),
        work: Work {
            buffers: vec![logits, argmax.part_bytes(), argmax.part_bytes(), tokens, tokens],
            fixed: vec![settings.collect()],
            steps,
        },
        floor_bytes: logits,
        operations: 0.0,
    }
}
