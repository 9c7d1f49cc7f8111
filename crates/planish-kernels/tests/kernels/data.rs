//! Random values, and values as bytes of a type.

use half::{bf16, f16};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};

pub const TYPES: [FloatType; 3] = [FloatType::F32, FloatType::F16, FloatType::BF16];
pub const WIDTHS: [u32; 6] = [2, 3, 4, 5, 6, 8];

/// SplitMix64.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// In -1 .. 1.
    pub fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    /// Values that the type holds exactly.
    pub fn values(&mut self, count: usize, float_type: FloatType) -> Vec<f32> {
        (0..count).map(|_| round_to(self.value(), float_type)).collect()
    }

    /// Random codes, scales of either sign, biases that about centre the codes.
    pub fn packed(&mut self, rows: usize, cols: usize, packing: Packing, float_type: FloatType) -> PackedMatrix {
        let shape = PackedShape::new(rows, cols, packing, float_type).expect("a shape that can be packed");
        let codes = (0..shape.code_bytes()).map(|_| self.next() as u8).collect::<Vec<u8>>();
        let levels = (1u32 << packing.bits()) as f32;
        let groups = rows * shape.groups();
        let scales: Vec<f32> = (0..groups).map(|_| (self.value() + 0.1) / levels).collect();
        let biases: Vec<f32> = scales
            .iter()
            .map(|scale| -scale * levels / 2.0 + 0.1 * self.value())
            .collect();
        let (scales, biases) = (to_bytes(&scales, float_type), to_bytes(&biases, float_type));
        PackedMatrix::new(shape, codes.into(), scales.into(), biases.into()).expect("lengths of the shape")
    }
}

pub fn round_to(value: f32, float_type: FloatType) -> f32 {
    match float_type {
        FloatType::F32 => value,
        FloatType::F16 => f16::from_f32(value).to_f32(),
        FloatType::BF16 => bf16::from_f32(value).to_f32(),
    }
}

pub fn to_bytes(values: &[f32], float_type: FloatType) -> Vec<u8> {
    let values = values.iter();
    match float_type {
        FloatType::F32 => values.flat_map(|value| value.to_le_bytes()).collect(),
        FloatType::F16 => values.flat_map(|&value| f16::from_f32(value).to_le_bytes()).collect(),
        FloatType::BF16 => values.flat_map(|&value| bf16::from_f32(value).to_le_bytes()).collect(),
    }
}

pub fn from_bytes(bytes: &[u8], float_type: FloatType) -> Vec<f32> {
    let pairs = || bytes.as_chunks::<2>().0.iter();
    match float_type {
        FloatType::F32 => bytes
            .as_chunks()
            .0
            .iter()
            .map(|&value| f32::from_le_bytes(value))
            .collect(),
        FloatType::F16 => pairs().map(|&value| f16::from_le_bytes(value).to_f32()).collect(),
        FloatType::BF16 => pairs().map(|&value| bf16::from_le_bytes(value).to_f32()).collect(),
    }
}

/// Bytes that are NaN in every type: what a kernel must overwrite.
pub fn poison(count: usize, float_type: FloatType) -> Vec<u8> {
    vec![0xff; count * float_type.size_bytes()]
}

/// Panics unless every value is within its own rounding to the type, and f32 sums, of the expected one.
pub fn assert_close(found: &[f32], expected: &[f64], float_type: FloatType, what: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len(), "{what:?}");
    let rounding = match float_type {
        FloatType::F32 => 0.0,
        FloatType::F16 => 0.5f64.powi(11),
        FloatType::BF16 => 0.5f64.powi(8),
    };
    let mean_square = expected.iter().map(|value| value * value).sum::<f64>() / expected.len() as f64;
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let allowed = 1.001 * rounding * expected.abs() + 1e-5 * mean_square.sqrt() + 1e-7;
        // A NaN is not below anything.
        let close = (f64::from(found) - expected).abs() <= allowed;
        assert!(close, "value {index} is {found}, expected {expected}, of {what:?}");
    }
}

/// For kernels that round weights too: relative to the size of all values, to what conformance allows a type of inputs; single
/// values to a few times as much.
pub fn assert_near(found: &[f32], expected: &[f64], float_type: FloatType, what: &dyn std::fmt::Debug) {
    assert_eq!(found.len(), expected.len(), "{what:?}");
    let allowed = match float_type {
        FloatType::F32 => 1e-5,
        FloatType::F16 => 3e-4,
        FloatType::BF16 => 2e-3,
    };
    let size = (expected.iter().map(|value| value * value).sum::<f64>() / expected.len() as f64).sqrt();
    let mut squares = 0.0;
    for (index, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(found) - expected).abs();
        squares += difference * difference;
        // A NaN is not below anything.
        let close = difference <= 5.0 * allowed * (size + expected.abs());
        assert!(close, "value {index} is {found}, expected {expected}, of {what:?}");
    }
    let error = (squares / expected.len() as f64).sqrt() / size;
    assert!(error <= allowed, "relative error {error:.2e} of {what:?}");
}
