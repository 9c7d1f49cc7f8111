//! Tensors with known values and comparison with references.
#![allow(dead_code, reason = "not every test file uses all of it")]

use planish_cpu::{Cpu, CpuOps, CpuSequences, CpuTensor, Precision};
use planish_format::FloatType;
use planish_ops::*;

/// Numbers that are the same in every run, about normal with the given spread.
pub fn random(seed: u64, count: usize, spread: f32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..count)
        .map(|_| spread * (uniform() + uniform() + uniform()) * 2.0)
        .collect()
}

pub fn ops(threads: usize, precision: Precision) -> CpuOps {
    CpuOps::new(Cpu::with_instructions(threads, None).unwrap(), precision)
}

/// Rows of one sequence, the first at this position.
pub fn span(rows: usize, first_position: usize) -> [Span; 1] {
    [Span {
        slot: 0,
        first_row: 0,
        rows,
        first_position,
    }]
}

/// Where rows stand.
pub fn places(spans: &[Span]) -> Places<'_, CpuOps> {
    Places {
        spans,
        sequences: &CpuSequences,
    }
}

/// A tensor that holds `values`, made by an embedding of its rows: the only way that values reach a device.
pub fn tensor(ops: &CpuOps, rows: usize, cols: usize, values: &[f32]) -> CpuTensor {
    let mut output = ops.tensor(rows, cols).unwrap();
    let tokens: Vec<u32> = (0..rows as u32).collect();
    ops.embed(Embed {
        table: &plain(rows, cols, values).into(),
        tokens: Tokens::Known(&tokens),
        scale: 1.0,
        output: &mut output,
    });
    output
}

pub fn plain(rows: usize, cols: usize, values: &[f32]) -> Matrix {
    let data: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    Matrix::Plain(PlainMatrix {
        rows,
        cols,
        float_type: FloatType::F32,
        data: data.into(),
    })
}

pub fn read(ops: &CpuOps, tensor: &CpuTensor, rows: usize) -> Vec<f32> {
    ops.read(tensor, 0..rows, &mut Vec::new()).unwrap().to_vec()
}

#[track_caller]
pub fn close(found: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(1e-3f64, |largest, value| largest.max(value.abs()));
    for (index, (&found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs() / largest;
        assert!(difference < tolerance, "{index}: {found} and {expected}");
    }
}
