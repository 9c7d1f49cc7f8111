//! A product to compute: a random packed matrix and x, the product in f64 of weights that this file decodes itself, and the comparison
//! of what the library gives.

use std::borrow::Cow;

use bytes::Bytes;
use half::{bf16, f16};
use planish_cpu::{Cpu, CpuMatrix, Matmul, Precision, Rounding, instruction_sets};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};

pub const FLOAT_TYPES: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];

/// A small random number generator (xorshift64*), so that failures can be repeated.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Between -1 and 1.
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// Little-endian bytes of `values`, and the values as stored, at an odd address.
pub fn stored(values: &[f32], float_type: FloatType) -> (Bytes, Vec<f32>) {
    let mut data = vec![0u8];
    let mut rounded = Vec::new();
    for &value in values {
        match float_type {
            FloatType::F32 => {
                data.extend(value.to_le_bytes());
                rounded.push(value);
            }
            FloatType::F16 => {
                data.extend(f16::from_f32(value).to_le_bytes());
                rounded.push(f16::from_f32(value).to_f32());
            }
            FloatType::BF16 => {
                data.extend(bf16::from_f32(value).to_le_bytes());
                rounded.push(bf16::from_f32(value).to_f32());
            }
        }
    }
    (Bytes::from(data).slice(1..), rounded)
}

/// What is multiplied.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub rows: usize,
    pub cols: usize,
    pub bits: u32,
    pub group: usize,
    pub m: usize,
    pub float_type: FloatType,
    pub codes: Codes,
    /// Scales of f32 that are halves, and biases that are whole multiples of them.
    pub zero_points: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Codes {
    Random,
    Largest,
}

/// A packed matrix and what is in it.
pub struct Packed {
    pub matrix: CpuMatrix,
    pub codes: Vec<u64>,
    pub scales: Vec<f32>,
    pub biases: Vec<f32>,
}

pub fn packed(case: &Case, random: &mut Random) -> Packed {
    let Case {
        rows,
        cols,
        bits,
        group,
        ..
    } = *case;
    let largest = (1u64 << bits) - 1;
    let codes: Vec<u64> = (0..rows * cols)
        .map(|_| match case.codes {
            Codes::Random => random.next() >> 20 & largest,
            Codes::Largest => largest,
        })
        .collect();
    // A row is a stream of bits, lowest first: written bit by bit, as the format is defined. One byte in front shifts it.
    let mut stream = vec![0u8; 1 + rows * cols * bits as usize / 8];
    for (index, code) in codes.iter().enumerate() {
        for bit in 0..bits as usize {
            let at = 8 + index * bits as usize + bit;
            stream[at / 8] |= ((code >> bit & 1) as u8) << (at % 8);
        }
    }
    let groups = rows * cols / group;
    let mut scales: Vec<f32> = (0..groups).map(|_| random.float() * 0.02).collect();
    let mut biases: Vec<f32> = (0..groups).map(|_| random.float() * 0.2).collect();
    if case.zero_points {
        scales = stored(&scales, FloatType::F16).1;
        for (bias, scale) in biases.iter_mut().zip(&scales) {
            *bias = -((random.next() >> 20 & largest) as f32) * scale;
        }
    }
    let (scale_data, scales) = stored(&scales, case.float_type);
    let (bias_data, biases) = stored(&biases, case.float_type);
    let shape = PackedShape::new(rows, cols, Packing::new(bits, group).unwrap(), case.float_type).unwrap();
    let matrix = PackedMatrix::new(shape, Bytes::from(stream).slice(1..), scale_data, bias_data).unwrap();
    Packed {
        matrix: CpuMatrix::Packed(matrix),
        codes,
        scales,
        biases,
    }
}

/// x with outliers and a zero group.
pub fn input(case: &Case, random: &mut Random) -> Vec<f32> {
    let value = |index: usize| match (case.codes, index % 97, index / case.group % 5) {
        (Codes::Largest, ..) => 1.0,
        (_, _, 3) => 0.0,
        (_, 13, _) => 20.0 * random.float(),
        _ => random.float(),
    };
    (0..case.m * case.cols).map(value).collect()
}

pub fn multiply(cpu: &Cpu, matrix: &CpuMatrix, x: &[f32], m: usize, precision: Precision) -> Vec<f32> {
    let mut out = vec![f32::NAN; m * matrix.rows()];
    cpu.matmul(Matmul {
        weights: &[matrix],
        input: x,
        m,
        whole: m,
        outputs: &mut [&mut out],
        precision,
    });
    out
}

/// Sums of products in f64, and of their magnitudes; NaN of rows that are not wanted. // x (m, cols), weights (rows, cols): (m, rows)
pub fn reference(
    x: &[f64],
    weights: &[f64],
    (rows, cols): (usize, usize),
    wanted: impl Fn(usize) -> bool,
) -> Vec<(f64, f64)> {
    let mut sums = Vec::with_capacity(x.len() / cols * rows);
    for x in x.chunks_exact(cols) {
        for (row, weights) in weights.chunks_exact(cols).enumerate() {
            let terms = || x.iter().zip(weights).map(|(x, weight)| x * weight);
            sums.push(match wanted(row) {
                true => terms().fold((0.0, 0.0), |(sum, size), term| (sum + term, size + term.abs())),
                false => (f64::NAN, 0.0),
            });
        }
    }
    sums
}

/// x as the kernels of a rounding see it, `None` if they see it exactly.
pub fn seen_input(x: &[f32], rounding: Option<Rounding>) -> Vec<f64> {
    match rounding {
        None => x.iter().map(|&x| f64::from(x)).collect(),
        Some(rounding) => rounded(x, rounding),
    }
}

/// Weights as the kernels of a rounding of x see them.
pub fn seen_weights(weights: &[f64], rounding: Option<Rounding>) -> Cow<'_, [f64]> {
    match rounding {
        Some(Rounding::Bf16) => weights
            .iter()
            .map(|&weight| bf16::from_f32(weight as f32).to_f64())
            .collect(),
        _ => Cow::Borrowed(weights),
    }
}

/// The rounding of x, written down again.
fn rounded(x: &[f32], rounding: Rounding) -> Vec<f64> {
    let (block, most) = match rounding {
        Rounding::Int8 { block } => (block, 127.0),
        Rounding::Int16 { block } => (block, 32_639.0),
        Rounding::Bf16 => return x.iter().map(|&x| bf16::from_f32(x).to_f64()).collect(),
    };
    let round = |values: &[f32]| {
        let largest = values.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let inverse = if largest == 0.0 { 0.0 } else { most / largest };
        let scale = f64::from(largest / most);
        values
            .iter()
            .map(|value| f64::from((value * inverse).round_ties_even()) * scale)
            .collect::<Vec<_>>()
    };
    x.chunks_exact(block).flat_map(round).collect()
}

/// How far a sum is off, relative to the sum of the terms' magnitudes; below 1e-30 nothing counts.
pub fn relative_error(got: f32, sum: f64, size: f64) -> f64 {
    match (f64::from(got) - sum).abs() {
        error if error <= 1e-30 => 0.0,
        error => error / size,
    }
}

pub fn assert_close(what: &str, got: &[f32], expected: &[(f64, f64)], tolerance: f64) {
    assert_eq!(got.len(), expected.len());
    for (index, (got, &(sum, size))) in got.iter().zip(expected).enumerate() {
        assert!(
            relative_error(*got, sum, size) <= tolerance,
            "{what}, value {index}: {got} for {sum}, terms of {size}"
        );
    }
}

/// Exact products, and those of rounded inputs: with that rounding accounted for, what is left is the rounding of f32 sums.
pub fn check(cpu: &Cpu, case: Case) {
    let mut random = Random(0x9e37_79b9 + case.cols as u64 * 31 + u64::from(case.bits));
    let packed = packed(&case, &mut random);
    let x = input(&case, &mut random);
    let weights: Vec<f64> = (0..case.rows * case.cols)
        .map(|index| weight(&case, &packed, index))
        .collect();
    let rounding = cpu.rounding(case.m, Packing::new(case.bits, case.group).unwrap());
    for (precision, rounding) in [(Precision::Exact, None), (Precision::Rounded, Some(rounding))] {
        let weights = seen_weights(&weights, rounding);
        let expected = reference(&seen_input(&x, rounding), &weights, (case.rows, case.cols), |_| true);
        let got = multiply(cpu, &packed.matrix, &x, case.m, precision);
        let what = format!("{} {case:?} {precision:?}", cpu.instructions());
        assert_close(&what, &got, &expected, 1e-5);
    }
}

pub fn weight(case: &Case, packed: &Packed, index: usize) -> f64 {
    let group = index / case.group;
    f64::from(packed.scales[group]) * packed.codes[index] as f64 + f64::from(packed.biases[group])
}

pub fn every_set(check: impl Fn(&Cpu)) {
    for name in instruction_sets() {
        check(&Cpu::with_instructions(2, Some(name)).unwrap());
    }
}

pub const BASE: Case = Case {
    rows: 33,
    cols: 320,
    bits: 4,
    group: 64,
    m: 1,
    float_type: FloatType::BF16,
    codes: Codes::Random,
    zero_points: false,
};
