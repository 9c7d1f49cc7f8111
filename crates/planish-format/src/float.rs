//! The three float types that weights, scales and biases come in, and their conversion to and from `f32`.
//!
//! Bytes are little-endian and need no alignment. Narrowing rounds to nearest, ties to even; NaN stays NaN.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::instructions;

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
    #[inline]
    pub fn size_bytes(self) -> usize {
        match self {
            FloatType::F32 => 4,
            FloatType::F16 | FloatType::BF16 => 2,
        }
    }

    /// The largest finite value.
    pub fn largest(self) -> f32 {
        match self {
            FloatType::F32 => f32::MAX,
            FloatType::F16 => 65504.0,
            FloatType::BF16 => f32::from_bits(0x7f7f_0000),
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
        instructions::widen(self, bytes, values);
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
        instructions::narrow(self, values, bytes);
    }
}

/// The loop of [`FloatType::decode`], for the instruction table.
#[inline(always)]
pub(crate) fn widen<const HALVES: bool>(float_type: FloatType, bytes: &[u8], values: &mut [f32]) {
    match float_type {
        FloatType::F32 => {
            for (value, four) in values.iter_mut().zip(bytes.as_chunks::<4>().0) {
                *value = f32::from_le_bytes(*four);
            }
        }
        FloatType::F16 => widen_f16::<HALVES>(bytes, values),
        FloatType::BF16 => {
            for (value, two) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
                *value = f32::from_bits(u32::from(u16::from_le_bytes(*two)) << 16);
            }
        }
    }
}

/// The loop of [`FloatType::encode`], for the instruction table.
#[inline(always)]
pub(crate) fn narrow<const HALVES: bool>(float_type: FloatType, values: &[f32], bytes: &mut [u8]) {
    match float_type {
        FloatType::F32 => {
            for (value, four) in values.iter().zip(bytes.as_chunks_mut::<4>().0) {
                *four = value.to_le_bytes();
            }
        }
        FloatType::F16 => narrow_f16::<HALVES>(values, bytes),
        FloatType::BF16 => {
            for (value, two) in values.iter().zip(bytes.as_chunks_mut::<2>().0) {
                *two = bf16_bits(*value).to_le_bytes();
            }
        }
    }
}

/// One value as a type stores it.
#[inline(always)]
pub(crate) fn rounded(float_type: FloatType, value: f32) -> f32 {
    match float_type {
        FloatType::F32 => value,
        FloatType::F16 => f16::from_f32_const(value).to_f32_const(),
        FloatType::BF16 => f32::from_bits(u32::from(bf16_bits(value)) << 16),
    }
}

/// The upper half of an `f32`, rounded to nearest, ties to even. Without branches, so that it is vectorized.
#[inline(always)]
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let last_kept = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + last_kept) >> 16;
    let quiet_nan = (bits >> 16) | 0x40; // rounding could carry a NaN into infinity or zero
    (if value.is_nan() { quiet_nan } else { rounded }) as u16
}

/// Half-precision conversion by the machine's instructions (the `half` crate's, where `HALVES` allows them) works on runs of
/// this many values, copied to be aligned.
const RUN: usize = 64;

#[inline(always)]
fn widen_f16<const HALVES: bool>(bytes: &[u8], values: &mut [f32]) {
    if !HALVES {
        for (value, two) in values.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *value = f16::from_le_bytes(*two).to_f32_const();
        }
        return;
    }
    let mut halves = [f16::ZERO; RUN];
    for (run, bytes) in values.chunks_mut(RUN).zip(bytes.chunks(RUN * 2)) {
        for (half, two) in halves.iter_mut().zip(bytes.as_chunks::<2>().0) {
            *half = f16::from_le_bytes(*two);
        }
        halves[..run.len()].convert_to_f32_slice(run);
    }
}

#[inline(always)]
fn narrow_f16<const HALVES: bool>(values: &[f32], bytes: &mut [u8]) {
    if !HALVES {
        for (value, two) in values.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *two = f16::from_f32_const(*value).to_le_bytes();
        }
        return;
    }
    let mut halves = [f16::ZERO; RUN];
    for (run, bytes) in values.chunks(RUN).zip(bytes.chunks_mut(RUN * 2)) {
        halves[..run.len()].convert_from_f32_slice(run);
        for (half, two) in halves.iter().zip(bytes.as_chunks_mut::<2>().0) {
            *two = half.to_le_bytes();
        }
    }
}
