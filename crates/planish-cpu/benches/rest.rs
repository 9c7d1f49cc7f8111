//! What surrounds the matrix products, in the sizes of SmolLM2 135M (30 layers, 9 query heads over 3 of 64 values, 576 hidden,
//! 1,536 between): attention, append, norms, rotation, activation.
//!
//! `cargo bench -p planish-cpu --bench rest [FILTER]`; `PLANISH_THREADS` sets the threads, `PLANISH_CPU` the instruction set.
//! Decode prints the rate at which keys and values are read, "read" what the memory gives for the same bytes.

use planish_ops::{Activation, CacheType, NormKind, RopePairs};
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use planish_cpu::{
    Activate, Attention, AttentionWorkspace, Cpu, KeyValueShape, KeyValues, Norm, Rope, RopeAngles, activate,
    attention, norm, rope, rope_angles,
};

const LAYERS: usize = 30;
const HEADS: usize = 9;
const SHAPE: KeyValueShape = KeyValueShape {
    heads: 3,
    head_dim: 64,
    value_dim: 64,
    window: None,
    cache: CacheType::Float16,
};
const HIDDEN: usize = 576;
const BETWEEN: usize = 1536;
const PROMPT: usize = 512;
const DEPTH: usize = 4096;
/// So many that no cache of the processor holds them.
const SEQUENCES: usize = 4;

fn cpu() -> Cpu {
    let threads = std::env::var("PLANISH_THREADS").ok();
    Cpu::new(threads.and_then(|threads| threads.parse().ok()).unwrap_or(0)).expect("an instruction set of this machine")
}

/// Numbers between -1 and 1.
fn numbers(count: usize) -> Vec<f32> {
    let value = |index: u32| (index.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0;
    (0..count as u32).map(value).collect()
}

fn caches(cpu: &Cpu, layers: usize, positions: usize) -> Vec<KeyValues> {
    let values = numbers(positions * SHAPE.heads * SHAPE.head_dim);
    let cache = |_| {
        let mut cache = KeyValues::new(SHAPE);
        cache.append(cpu, 0, &values, &values);
        cache
    };
    (0..layers).map(cache).collect()
}

fn attend(cpu: &Cpu, cache: &KeyValues, first_position: usize, queries: &[f32], output: &mut [f32]) {
    thread_local!(static WORKSPACE: std::cell::RefCell<AttentionWorkspace> = std::cell::RefCell::default());
    let mut problem = Attention {
        queries,
        heads: HEADS,
        first_position,
        scale: 0.125,
        window: None,
        softcap: None,
        alibi: None,
        sinks: None,
        key_values: cache,
        output,
    };
    WORKSPACE.with_borrow_mut(|workspace| attention(cpu, &mut problem, workspace));
}

fn attention_rates(criterion: &mut Criterion) {
    let cpu = cpu();
    let mut group = criterion.benchmark_group("attention");
    let row = HEADS * SHAPE.head_dim;
    for rows in [PROMPT, DEPTH] {
        let cache = caches(&cpu, 1, rows);
        let (queries, mut output) = (numbers(rows * row), vec![0.0; rows * row]);
        group.throughput(Throughput::Elements((rows * rows * row * 2) as u64));
        group.bench_function(format!("prefill {rows}, operations"), |bencher| {
            bencher.iter(|| attend(&cpu, &cache[0], 0, &queries, &mut output));
        });
    }
    let caches = caches(&cpu, SEQUENCES * LAYERS, DEPTH);
    let (queries, mut output) = (numbers(row), vec![0.0; row]);
    let bytes: usize = caches.iter().map(KeyValues::bytes).sum();
    group.throughput(Throughput::Bytes(bytes as u64));
    group.bench_function(format!("decode at {DEPTH}"), |bencher| {
        bencher.iter(|| {
            for cache in &caches {
                attend(&cpu, cache, DEPTH - 1, &queries, &mut output);
            }
        });
    });
    let data = vec![1u64; bytes / 8];
    group.bench_function("read", |bencher| {
        bencher.iter(|| {
            cpu.pool().run(|slot, slots| {
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
    let cpu = cpu();
    let mut group = criterion.benchmark_group(format!("{PROMPT} rows"));
    // Up of ones: a product of small numbers, again and again, would become subnormal.
    let (mut gate, up) = (vec![30.0; PROMPT * BETWEEN], vec![1.0; PROMPT * BETWEEN]);
    group.bench_function("activation", |bencher| {
        bencher.iter(|| {
            let activation = Activation::Silu;
            let problem = Activate {
                activation,
                gate: &mut gate,
                up: Some(&up),
            };
            activate(&cpu, problem);
        });
    });
    let (mut hidden, residual, mut output) = (
        numbers(PROMPT * HIDDEN),
        numbers(PROMPT * HIDDEN),
        numbers(PROMPT * HIDDEN),
    );
    let weight = numbers(HIDDEN);
    group.bench_function("norm", |bencher| {
        bencher.iter(|| {
            norm(
                &cpu,
                Norm {
                    kind: NormKind::Rms,
                    width: HIDDEN,
                    hidden: &mut hidden,
                    residual: Some((&residual, 1e-6)),
                    weight: Some(&weight),
                    bias: None,
                    epsilon: 1e-5,
                    output: Some(&mut output),
                },
            );
        });
    });
    let (mut heads, mut angles) = (numbers(PROMPT * HIDDEN), vec![0.0; PROMPT * SHAPE.head_dim]);
    rope_angles(RopeAngles {
        frequencies: &[0.1; 32],
        factor: 1.0,
        first_position: 0,
        output: &mut angles,
    });
    group.bench_function("rotation", |bencher| {
        bencher.iter(|| {
            let problem = Rope {
                heads: &mut heads,
                head_dim: SHAPE.head_dim,
                angles: &angles,
                rotated: SHAPE.head_dim,
                pairs: RopePairs::Halves,
            };
            rope(&cpu, problem);
        });
    });
    let keys = numbers(PROMPT * SHAPE.heads * SHAPE.head_dim);
    let mut cache = KeyValues::new(SHAPE);
    group.bench_function("append", |bencher| {
        bencher.iter(|| cache.append(&cpu, 0, &keys, &keys));
    });
    let one = SHAPE.heads * SHAPE.head_dim;
    group.bench_function("append of one row", |bencher| {
        bencher.iter(|| cache.append(&cpu, 77, &keys[..one], &keys[..one]));
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
