//! Rates of quantizing and dequantizing, in bytes of plain weights a second, on all threads of the rayon pool.
//!
//! One matrix of 4096 x 4096 weights, group 64, every width. `cargo bench -p planish-format`; RAYON_NUM_THREADS sets the
//! threads and PLANISH_CPU (scalar, avx2, avx512) the instruction set. Measured in November 2026 on 2 cores of an Intel
//! Xeon with AVX-512, GiB/s over the widths: quantizing bf16 3.2 to 4.5 (avx2 2.8 to 5.5, scalar at 4 bits 2.5 to 3.0),
//! dequantizing to bf16 13 to 17 (avx2 8.8 to 12.5, scalar at 4 bits 6.2).

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use planish_format::{
    Encoder, FloatMatrix, FloatType, PackedMatrix, Packing, dequantize_into, first_non_finite, quantize,
};

const ROWS: usize = 4096;
const COLS: usize = 4096;
const GROUP: usize = 64;

/// Weights with about the spread of a normal distribution: the sum of four uniform values. // (ROWS, COLS)
fn weights(float_type: FloatType) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let parts = (state >> 16).to_le_bytes();
        parts[..4].iter().map(|&part| f32::from(part) - 127.5).sum::<f32>() * 1e-4
    };
    let values: Vec<f32> = (0..ROWS * COLS).map(|_| next()).collect();
    let mut data = vec![0; values.len() * float_type.size_bytes()];
    float_type.encode(&values, &mut data);
    data
}

fn matrix(float_type: FloatType, data: &[u8]) -> FloatMatrix<'_> {
    FloatMatrix::new(ROWS, COLS, float_type, data).expect("lengths fit")
}

fn packed(bits: u32, data: &[u8]) -> PackedMatrix {
    let packing = Packing::new(bits, GROUP).expect("a packing");
    quantize(matrix(FloatType::BF16, data), packing, Encoder::MlxMetal).expect("finite weights")
}

fn quantizing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("quantize");
    for (name, float_type) in [
        ("bf16", FloatType::BF16),
        ("f16", FloatType::F16),
        ("f32", FloatType::F32),
    ] {
        let data = weights(float_type);
        group.throughput(Throughput::Bytes(data.len() as u64));
        let widths: &[u32] = if name == "bf16" { &[2, 3, 4, 5, 6, 8] } else { &[4] };
        for &bits in widths {
            let packing = Packing::new(bits, GROUP).expect("a packing");
            for encoder in [Encoder::Transformers, Encoder::MlxCpu, Encoder::MlxMetal] {
                group.bench_function(format!("{name}/{bits}/{encoder:?}"), |bencher| {
                    bencher.iter(|| quantize(matrix(float_type, &data), packing, encoder))
                });
            }
        }
    }
}

fn dequantizing(criterion: &mut Criterion) {
    let data = weights(FloatType::BF16);
    let mut group = criterion.benchmark_group("dequantize");
    for (name, float_type) in [
        ("bf16", FloatType::BF16),
        ("f16", FloatType::F16),
        ("f32", FloatType::F32),
    ] {
        let mut room = vec![0; ROWS * COLS * float_type.size_bytes()];
        group.throughput(Throughput::Bytes(room.len() as u64));
        for bits in [2, 3, 4, 5, 6, 8] {
            let matrix = packed(bits, &data);
            group.bench_function(format!("{name}/{bits}"), |bencher| {
                bencher.iter(|| dequantize_into(&matrix, float_type, &mut room))
            });
        }
    }
}

fn scanning(criterion: &mut Criterion) {
    let data = weights(FloatType::BF16);
    let mut group = criterion.benchmark_group("first_non_finite");
    group.throughput(Throughput::Bytes(data.len() as u64));
    group.bench_function("bf16", |bencher| {
        bencher.iter(|| first_non_finite(matrix(FloatType::BF16, &data)))
    });
}

criterion_group! {
    name = format;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300))
        .without_plots();
    targets = quantizing, dequantizing, scanning
}
criterion_main!(format);
