//! What surrounds the matrix products, in the sizes of SmolLM2 135M (30 layers, 9 query heads over 3 of 64 values, 576 hidden,
//! 1,536 between): attention, append, norms, rotation, activation.
//!
//! `cargo bench -p planish-cpu --bench rest [FILTER]`; `PLANISH_THREADS` sets the threads, `PLANISH_CPU` the instruction set.
//! Decode prints the rate at which keys and values are read, "read" what the memory gives for the same bytes.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use planish_cpu::{Cpu, CpuOps, CpuSequences, CpuTensor, KeyValues, Precision};
use planish_format::FloatType;
use planish_ops::{
    Activation, Append, Attention, CacheType, Embed, Gate, KeyValueSizes, Matrix, Norm, NormKind, Ops, Places,
    PlainMatrix, Residual, Rope, RopeAngles, RopePairs, Span, Tokens,
};

const LAYERS: usize = 30;
const HEADS: usize = 9;
const SIZES: KeyValueSizes = KeyValueSizes {
    heads: 3,
    head_dim: 64,
    value_dim: 64,
    window: None,
};
const HIDDEN: usize = 576;
const BETWEEN: usize = 1536;
const PROMPT: usize = 512;
const DEPTH: usize = 4096;
/// So many that no cache of the processor holds them.
const SEQUENCES: usize = 4;

fn ops() -> CpuOps {
    let threads = std::env::var("PLANISH_THREADS").ok();
    let threads = threads.and_then(|threads| threads.parse().ok()).unwrap_or(0);
    let cpu = Cpu::new(threads).expect("an instruction set of this machine");
    CpuOps::new(cpu, Precision::Rounded).with_cache(CacheType::Float16)
}

/// Numbers between -1 and 1.
fn numbers(ops: &CpuOps, rows: usize, cols: usize) -> CpuTensor {
    let value = |index: u32| (index.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    constant(ops, rows, cols, value)
}

/// Values by their index.
fn constant(ops: &CpuOps, rows: usize, cols: usize, value: impl Fn(u32) -> f32) -> CpuTensor {
    let data: Vec<u8> = (0..(rows * cols) as u32)
        .flat_map(|index| value(index).to_le_bytes())
        .collect();
    let table = Matrix::Plain(PlainMatrix {
        rows,
        cols,
        float_type: FloatType::F32,
        data: data.into(),
    });
    let tokens: Vec<u32> = (0..rows as u32).collect();
    let mut output = ops.tensor(rows, cols).expect("memory");
    ops.embed(Embed {
        table: &table.into(),
        tokens: Tokens::Known(&tokens),
        scale: 1.0,
        output: &mut output,
    });
    output
}

fn span(rows: usize, first_position: usize) -> [Span; 1] {
    [Span {
        slot: 0,
        first_row: 0,
        rows,
        first_position,
    }]
}

fn places(spans: &[Span]) -> Places<'_, CpuOps> {
    Places {
        spans,
        sequences: &CpuSequences,
    }
}

fn append(ops: &CpuOps, key_values: &mut KeyValues, spans: &[Span], keys: &mut CpuTensor, values: &CpuTensor) {
    let stored = ops.append(Append {
        places: places(spans),
        rotation: None,
        keys,
        values,
        key_values,
    });
    stored.expect("memory");
}

fn caches(ops: &CpuOps, layers: usize, positions: usize) -> Vec<KeyValues> {
    let cols = SIZES.heads * SIZES.head_dim;
    let (mut keys, values) = (numbers(ops, positions, cols), numbers(ops, positions, cols));
    let cache = |_| {
        let mut cache = ops.key_values(SIZES).expect("memory");
        append(ops, &mut cache, &span(positions, 0), &mut keys, &values);
        cache
    };
    (0..layers).map(cache).collect()
}

fn attend(ops: &CpuOps, key_values: &KeyValues, spans: &[Span], queries: &CpuTensor, output: &mut CpuTensor) {
    ops.attention(Attention {
        places: places(spans),
        queries,
        heads: HEADS,
        scale: 0.125,
        temperature_tuning: None,
        window: None,
        softcap: None,
        alibi: None,
        sinks: None,
        key_values,
        output,
    });
}

fn attention_rates(criterion: &mut Criterion) {
    let ops = ops();
    let mut group = criterion.benchmark_group("attention");
    let row = HEADS * SIZES.head_dim;
    for rows in [PROMPT, DEPTH] {
        let cache = caches(&ops, 1, rows);
        let (queries, mut output) = (numbers(&ops, rows, row), numbers(&ops, rows, row));
        group.throughput(Throughput::Elements((rows * rows * row * 2) as u64));
        group.bench_function(format!("prefill {rows}, operations"), |bencher| {
            bencher.iter(|| attend(&ops, &cache[0], &span(rows, 0), &queries, &mut output));
        });
    }
    let caches = caches(&ops, SEQUENCES * LAYERS, DEPTH);
    let (queries, mut output) = (numbers(&ops, 1, row), numbers(&ops, 1, row));
    let bytes: usize = caches.iter().map(|cache| cache.bytes(0)).sum();
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(format!("decode at {DEPTH}"), |bencher| {
        bencher.iter(|| {
            for cache in &caches {
                attend(&ops, cache, &span(1, DEPTH - 1), &queries, &mut output);
            }
        });
    });
    let data = vec![1u64; bytes / 8];
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            ops.cpu().pool().run(|slot, slots| {
                let part = data.len() / slots;
                let mut sums = [0u64; 64];
                for words in data[slot * part..][..part].as_chunks::<64>().0 {
                    for (sum, word) in sums.iter_mut().zip(words) {
                        *sum = sum.wrapping_add(*word);
                    }
                }
                black_box(sums);
            });
        });
    });
    group.finish();
}

fn element_wise(criterion: &mut Criterion) {
    let ops = ops();
    let mut group = criterion.benchmark_group(format!("{PROMPT} rows"));
    // Up of ones: a product of small numbers, again and again, would become subnormal.
    let (mut gate, up) = (
        constant(&ops, PROMPT, BETWEEN, |_| 30.0),
        constant(&ops, PROMPT, BETWEEN, |_| 1.0),
    );
    group.bench_function("activation", |bencher| {
        bencher.iter(|| {
            ops.gate(Gate {
                rows: PROMPT,
                activation: Activation::Silu,
                gate: &mut gate,
                up: Some(&up),
            });
        });
    });
    let [mut hidden, residual, mut output] = [(); 3].map(|()| numbers(&ops, PROMPT, HIDDEN));
    let weight = numbers(&ops, 1, HIDDEN);
    group.bench_function("norm", |bencher| {
        bencher.iter(|| {
            ops.norm(Norm {
                kind: NormKind::Rms,
                rows: 0..PROMPT,
                width: HIDDEN,
                hidden: &mut hidden,
                residual: Some(Residual {
                    tensor: &residual,
                    factor: 1e-6,
                }),
                weight: Some(&weight),
                bias: None,
                epsilon: 1e-5,
                output: Some(&mut output),
            });
        });
    });
    let (mut heads, mut angles) = (numbers(&ops, PROMPT, HIDDEN), numbers(&ops, PROMPT, SIZES.head_dim));
    ops.rope_angles(RopeAngles {
        frequencies: &[0.1; 32],
        factor: 1.0,
        places: places(&span(PROMPT, 0)),
        output: &mut angles,
    });
    group.bench_function("rotation", |bencher| {
        bencher.iter(|| {
            ops.rope(Rope {
                rows: PROMPT,
                heads: &mut heads,
                head_dim: SIZES.head_dim,
                angles: &angles,
                pairs: RopePairs::Halves,
            });
        });
    });
    let cols = SIZES.heads * SIZES.head_dim;
    let (mut keys, values) = (numbers(&ops, PROMPT, cols), numbers(&ops, PROMPT, cols));
    let mut cache = ops.key_values(SIZES).expect("memory");
    group.bench_function("append", |bencher| {
        bencher.iter(|| append(&ops, &mut cache, &span(PROMPT, 0), &mut keys, &values));
    });
    group.bench_function("append of one row", |bencher| {
        bencher.iter(|| append(&ops, &mut cache, &span(1, 77), &mut keys, &values));
    });
    group.finish();
}

fn settings() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1500))
        .sample_size(20)
}

criterion_group!(name = benches; config = settings(); targets = attention_rates, element_wise);
criterion_main!(benches);
