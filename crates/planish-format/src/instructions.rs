//! The instruction sets that the loops over a row are compiled for, best first; one is chosen at the first use.
//!
//! Every row of the table is the same text (row.rs, float.rs) under other target features, so the results are the same
//! bits: the compiler neither reorders nor fuses float arithmetic. `PLANISH_CPU=name` forces a row that the machine
//! supports; other names, which may be those of the kernels, leave the choice alone.

use std::sync::LazyLock;

use crate::FloatType;
use crate::row::{DecodeRow, EncodeRow};

/// The loops over one row, compiled for one instruction set.
pub(crate) struct InstructionSet {
    pub name: &'static str,
    /// Whether this machine has it. The functions may only be called where it has.
    pub supported: fn() -> bool,
    /// Codes, scales and biases of a row; false if a weight is NaN or infinite.
    pub encode_row: unsafe fn(&mut EncodeRow) -> bool,
    /// The weights of a row.
    pub decode_row: unsafe fn(&mut DecodeRow),
    /// Codes below `2^bits` to a bit stream.
    pub pack: unsafe fn(&[u8], u32, &mut [u8]),
    /// A bit stream to codes.
    pub unpack: unsafe fn(&[u8], u32, &mut [u8]),
    /// Little-endian values of a type to `f32`.
    pub widen: unsafe fn(FloatType, &[u8], &mut [f32]),
    /// `f32` to little-endian values of a type.
    pub narrow: unsafe fn(FloatType, &[f32], &mut [u8]),
}

/// Best first. The last is what the program is compiled for: SSE2 on x86-64, NEON on AArch64.
pub(crate) static TABLE: &[InstructionSet] = &[
    #[cfg(target_arch = "x86_64")]
    InstructionSet {
        name: "avx512",
        supported: || std::is_x86_feature_detected!("avx512bw") && std::is_x86_feature_detected!("avx512vl"),
        encode_row: avx512::encode_row,
        decode_row: avx512::decode_row,
        pack: avx512::pack,
        unpack: avx512::unpack,
        widen: avx512::widen,
        narrow: avx512::narrow,
    },
    #[cfg(target_arch = "x86_64")]
    InstructionSet {
        name: "avx2",
        supported: || std::is_x86_feature_detected!("avx2"),
        encode_row: avx2::encode_row,
        decode_row: avx2::decode_row,
        pack: avx2::pack,
        unpack: avx2::unpack,
        widen: avx2::widen,
        narrow: avx2::narrow,
    },
    InstructionSet {
        name: "scalar",
        supported: || true,
        encode_row: crate::row::encode_row,
        decode_row: crate::row::decode_row,
        pack: crate::bits::pack,
        unpack: crate::bits::unpack,
        widen: crate::float::widen,
        narrow: crate::float::narrow,
    },
];

static CHOSEN: LazyLock<&InstructionSet> = LazyLock::new(|| {
    let forced = std::env::var("PLANISH_CPU").unwrap_or_default();
    let supported = || TABLE.iter().filter(|set| (set.supported)());
    supported()
        .find(|set| set.name == forced)
        .or(supported().next())
        .expect("the last row is always supported")
});

/// The name of the instruction set in use.
pub fn instruction_set() -> &'static str {
    CHOSEN.name
}

/// Fills in codes, scales and biases; false if a weight is NaN or infinite.
pub(crate) fn encode_row(mut row: EncodeRow) -> bool {
    // SAFETY: a chosen row of the table is supported.
    unsafe { (CHOSEN.encode_row)(&mut row) }
}

/// Fills in the weights.
pub(crate) fn decode_row(mut row: DecodeRow) {
    // SAFETY: a chosen row of the table is supported.
    unsafe { (CHOSEN.decode_row)(&mut row) }
}

/// Codes below `2^bits` to a bit stream.
pub(crate) fn pack(codes: &[u8], bits: u32, stream: &mut [u8]) {
    // SAFETY: a chosen row of the table is supported.
    unsafe { (CHOSEN.pack)(codes, bits, stream) }
}

/// A bit stream to codes.
pub(crate) fn unpack(stream: &[u8], bits: u32, codes: &mut [u8]) {
    // SAFETY: a chosen row of the table is supported.
    unsafe { (CHOSEN.unpack)(stream, bits, codes) }
}

/// Little-endian values of a type to `f32`; as many bytes as the values need.
pub(crate) fn widen(float_type: FloatType, bytes: &[u8], values: &mut [f32]) {
    // SAFETY: a chosen row of the table is supported.
    unsafe { (CHOSEN.widen)(float_type, bytes, values) }
}

/// `f32` to little-endian values of a type; as many bytes as the values need.
pub(crate) fn narrow(float_type: FloatType, values: &[f32], bytes: &mut [u8]) {
    // SAFETY: a chosen row of the table is supported.
    unsafe { (CHOSEN.narrow)(float_type, values, bytes) }
}

/// 512-bit registers, with the narrowing stores of bytes.
#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{DecodeRow, EncodeRow, FloatType};

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub(super) fn encode_row(row: &mut EncodeRow) -> bool {
        crate::row::encode_row(row)
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub(super) fn decode_row(row: &mut DecodeRow) {
        crate::row::decode_row(row);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub(super) fn pack(codes: &[u8], bits: u32, stream: &mut [u8]) {
        crate::bits::pack(codes, bits, stream);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub(super) fn unpack(stream: &[u8], bits: u32, codes: &mut [u8]) {
        crate::bits::unpack(stream, bits, codes);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub(super) fn widen(float_type: FloatType, bytes: &[u8], values: &mut [f32]) {
        crate::float::widen(float_type, bytes, values);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2")]
    pub(super) fn narrow(float_type: FloatType, values: &[f32], bytes: &mut [u8]) {
        crate::float::narrow(float_type, values, bytes);
    }
}

/// 256-bit registers.
#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{DecodeRow, EncodeRow, FloatType};

    #[target_feature(enable = "avx2")]
    pub(super) fn encode_row(row: &mut EncodeRow) -> bool {
        crate::row::encode_row(row)
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn decode_row(row: &mut DecodeRow) {
        crate::row::decode_row(row);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn pack(codes: &[u8], bits: u32, stream: &mut [u8]) {
        crate::bits::pack(codes, bits, stream);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn unpack(stream: &[u8], bits: u32, codes: &mut [u8]) {
        crate::bits::unpack(stream, bits, codes);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn widen(float_type: FloatType, bytes: &[u8], values: &mut [f32]) {
        crate::float::widen(float_type, bytes, values);
    }

    #[target_feature(enable = "avx2")]
    pub(super) fn narrow(float_type: FloatType, values: &[f32], bytes: &mut [u8]) {
        crate::float::narrow(float_type, values, bytes);
    }
}

#[cfg(test)]
mod tests;
