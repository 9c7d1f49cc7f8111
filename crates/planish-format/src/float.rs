//! The three float types that weights, scales and biases come in, and their conversion to and from `f32`.
//!
//! Bytes are little-endian and need no alignment. Narrowing rounds to nearest, ties to even; NaN stays NaN.

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

/// The type of plain weights and of the scales and biases of packed ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FloatType {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of an `F32`.
    BF16,
}

impl FloatType {
    /// Bytes of one value.
    pub fn size_bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }

    /// Reads little-endian values of this type.
    ///
    /// # Panics
    /// If `bytes` is not `values.len() * size_bytes()` long.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) {
        assert_eq!(
            bytes.len(),
            values.len() * self.size_bytes(),
            "bytes of {} {self:?} values",
            values.len()
        );
        match self {
            FloatType::F32 => decode_f32(bytes, values),
            FloatType::F16 => decode_f16(bytes, values),
            FloatType::BF16 => decode_bf16(bytes, values),
        }
    }

    /// Writes values as this type, rounded to nearest, ties to even.
    ///
    /// # Panics
    /// If `bytes` is not `values.len() * size_bytes()` long.
    pub fn encode(self, values: &[f32], bytes: &mut [u8]) {
        assert_eq!(
            bytes.len(),
            values.len() * self.size_bytes(),
            "bytes of {} {self:?} values",
            values.len()
        );
        match self {
            FloatType::F32 => encode_f32(values, bytes),
            FloatType::F16 => encode_f16(values, bytes),
            FloatType::BF16 => encode_bf16(values, bytes),
        }
    }
}

/// Half-precision conversion works on runs of this many values, copied to be aligned.
const RUN: usize = 64;

fn decode_f32(bytes: &[u8], values: &mut [f32]) {
    for (value, four) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *value = f32::from_le_bytes(*four);
    }
}

fn decode_bf16(bytes: &[u8], values: &mut [f32]) {
    for (value, two) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes(*two)) << 16);
    }
}

fn decode_f16(bytes: &[u8], values: &mut [f32]) {
    let mut halves = [f16::ZERO; RUN];
    for (run, bytes) in values.chunks_mut(RUN).zip(bytes.chunks(RUN * 2)) {
        for (half, two) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*two);
        }
        halves[..run.len()].convert_to_f32_slice(run);
    }
}

fn encode_f32(values: &[f32], bytes: &mut [u8]) {
    for (value, four) in values.iter().zip(bytes.as_chunks_mut::<4>().0) {
        *four = value.to_le_bytes();
    }
}

fn encode_bf16(values: &[f32], bytes: &mut [u8]) {
    for (value, two) in values.iter().zip(bytes.as_chunks_mut::<2>().0) {
        *two = bf16::from_f32(*value).to_le_bytes();
    }
}

fn encode_f16(values: &[f32], bytes: &mut [u8]) {
    let mut halves = [f16::ZERO; RUN];
    for (run, bytes) in values.chunks(RUN).zip(bytes.chunks_mut(RUN * 2)) {
        halves[..run.len()].convert_from_f32_slice(run);
        for (half, two) in halves.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *two = half.to_le_bytes();
        }
    }
}
