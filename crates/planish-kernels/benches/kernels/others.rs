//! What surrounds the products, on the sizes of an 8B model: each beside the time that its bytes take at the speed of reading.

use planish_format::{Encoder, FloatType, Packing};
use planish_gpu::Queue;
use planish_kernels::launch::{
    Add, Argmax, Attention, Features, Gate, Launch, Norm, Place, Quantize, Rope, Rows, TensorAttention, WeightKind,
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
            place(value, rows),
            gate(value, rows),
            add(value, rows),
        ]);
    }
    cases.extend(DEPTHS.map(|positions| attention(&query(value, 1, positions - 1))));
    for rows in PREFILLS {
        let prefill = query(value, rows, 0);
        cases.push(attention(&prefill));
        let tensor = TensorAttention::new(prefill).filter(|_| features.tensor_cores);
        cases.extend(tensor.map(|tensor| tensor_attention(&prefill, &tensor)));
    }
    for &packing in &choice.packings {
        cases.extend(ROWS.map(|rows| embed(value, packing, rows)));
        cases.extend([dequantize(value, packing), quantize(packing)]);
    }
    cases.push(argmax());
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
fn place(value: FloatType, rows: u32) -> Case {
    let launch = Place {
        neighbours: false,
        value,
        cache: value,
        rows,
        first_position: 0,
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
    let case = Case::single(
        "place",
        format!("{rows} x {HEADS} + 2 x {KV_HEADS} heads of {HEAD_DIM}"),
        launch,
        vec![queries, keys, keys, angles, keys, keys],
    );
    Case {
        floor_bytes: 2 * queries + 4 * keys + angles,
        ..case
    }
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

/// Rows of queries after some positions.
fn query(value: FloatType, rows: u32, first_position: u32) -> Attention {
    Attention {
        value,
        cache: value,
        rows,
        first_position,
        heads: HEADS,
        kv_heads: KV_HEADS,
        head_dim: HEAD_DIM,
        value_dim: HEAD_DIM,
        scale: 0.088,
        window: None,
        softcap: None,
        alibi_factor: None,
        sinks: false,
    }
}

fn attention(problem: &Attention) -> Case {
    let name = if problem.rows == 1 {
        "attention, decode"
    } else {
        "attention, prefill"
    };
    attention_case(
        name,
        problem,
        problem.scratch_bytes(),
        (problem.launch(), problem.merge()),
    )
}

fn tensor_attention(problem: &Attention, tensor: &TensorAttention) -> Case {
    attention_case(
        "tensor_attention",
        problem,
        tensor.scratch_bytes(),
        (tensor.launch(), tensor.merge()),
    )
}

/// The join of split positions is part of it.
fn attention_case(
    name: &'static str,
    problem: &Attention,
    scratch_bytes: usize,
    launches: (Launch, Option<Launch>),
) -> Case {
    let (rows, first_position) = (problem.rows, problem.first_position);
    let positions = first_position + rows;
    let queries = bytes(rows * HEADS * HEAD_DIM, problem.value);
    let cache = bytes(positions * KV_HEADS * HEAD_DIM, problem.cache);
    let vector = bytes(HEADS, FloatType::F32);
    // Queries, keys, values, sinks, slopes, partials, output.
    let buffers = vec![queries, cache, cache, vector, vector, scratch_bytes, queries];
    let (launch, merge) = launches;
    let mut steps = vec![Step {
        launch,
        buffers: (0..7).collect(),
    }];
    steps.extend(merge.map(|launch| Step {
        launch,
        buffers: vec![5, 3, 6],
    }));
    let seen = f64::from(rows) * (f64::from(first_position) + f64::from(rows + 1) / 2.0);
    Case {
        name,
        sizes: format!("{rows} rows, {positions} positions"),
        work: Work { buffers, steps },
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

fn argmax() -> Case {
    let argmax = Argmax {
        value: FloatType::F32,
        rows: 1,
        cols: VOCABULARY,
    };
    let logits = bytes(VOCABULARY, FloatType::F32);
    let steps = vec![
        Step {
            launch: argmax.parts(),
            buffers: vec![0, 1, 2],
        },
        Step {
            launch: argmax.tokens(),
            buffers: vec![1, 2, 3],
        },
    ];
    Case {
        name: "argmax",
        sizes: format!("{VOCABULARY}"),
        work: Work {
            buffers: vec![logits, argmax.part_bytes(), argmax.part_bytes(), 4],
            steps,
        },
        floor_bytes: logits,
        operations: 0.0,
    }
}
