//! The loops over a row, compiled for the instruction sets that gain by it.
//!
//! Every row of the table is the same text (row.rs, float.rs) under other target features, so the results are the same
//! bits: the compiler neither reorders nor fuses float arithmetic.

use std::sync::LazyLock;

use crate::affine::Affine;
use crate::products::{Dots, Tile};
use crate::row::{DecodeRow, EncodeRow};
use crate::search::{Group, SearchScratch};
use crate::{FloatType, Isa};

/// The loops over one row, compiled for one instruction set. They may only be called where the machine has it.
pub(crate) struct Loops {
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
    /// Scale, bias and codes of one group.
    pub search_group: unsafe fn(&Group, &mut SearchScratch, &mut [u8]) -> Affine,
    /// Sums of products of some columns of two matrices.
    pub tile: unsafe fn(&mut Tile),
    /// Sums of products of one row with four.
    pub dots: unsafe fn(&Dots) -> [f64; 4],
}

/// The loops for an instruction set.
pub(crate) fn loops(isa: Isa) -> &'static Loops {
    match isa {
        #[cfg(all(target_arch = "x86_64", target_os = "linux"))]
        Isa::Amx => &avx512::LOOPS,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni | Isa::Avx512 => &avx512::LOOPS,
        #[cfg(target_arch = "x86_64")]
        Isa::AvxVnni | Isa::Avx2 => &avx2::LOOPS,
        #[cfg(target_arch = "aarch64")]
        Isa::NeonI8mm | Isa::NeonDotprod | Isa::Neon => &neon::LOOPS,
        Isa::Scalar => &scalar::LOOPS,
    }
}

/// Those of the process. A wrong name is refused where an error can be returned; the loops themselves are then scalar.
static CHOSEN: LazyLock<&Loops> = LazyLock::new(|| loops(Isa::chosen().unwrap_or(Isa::Scalar)));

/// Fills in codes, scales and biases; false if a weight is NaN or infinite.
pub(crate) fn encode_row(mut row: EncodeRow) -> bool {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.encode_row)(&mut row) }
}

/// Fills in the weights.
pub(crate) fn decode_row(mut row: DecodeRow) {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.decode_row)(&mut row) }
}

/// Codes below `2^bits` to a bit stream.
pub(crate) fn pack(codes: &[u8], bits: u32, stream: &mut [u8]) {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.pack)(codes, bits, stream) }
}

/// A bit stream to codes.
pub(crate) fn unpack(stream: &[u8], bits: u32, codes: &mut [u8]) {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.unpack)(stream, bits, codes) }
}

/// Little-endian values of a type to `f32`; as many bytes as the values need.
pub(crate) fn widen(float_type: FloatType, bytes: &[u8], values: &mut [f32]) {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.widen)(float_type, bytes, values) }
}

/// `f32` to little-endian values of a type; as many bytes as the values need.
pub(crate) fn narrow(float_type: FloatType, values: &[f32], bytes: &mut [u8]) {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.narrow)(float_type, values, bytes) }
}

/// Scale, bias and codes of one group.
pub(crate) fn search_group(group: &Group, scratch: &mut SearchScratch, codes: &mut [u8]) -> Affine {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.search_group)(group, scratch, codes) }
}

/// Sums of products of some columns of two matrices.
pub(crate) fn tile(mut tile: Tile) {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.tile)(&mut tile) }
}

/// Sums of products of one row with four.
pub(crate) fn dots(dots: Dots) -> [f64; 4] {
    // SAFETY: the machine has a chosen instruction set.
    unsafe { (CHOSEN.dots)(&dots) }
}

/// A module with the loops compiled for target features, where some are named. `HALVES`: whether the machine converts f16.
macro_rules! compile_loops {
    ($module:ident, $halves:literal $(, $features:literal)?) => {
        mod $module {
            use super::{Affine, DecodeRow, Dots, EncodeRow, FloatType, Group, Loops, SearchScratch, Tile};

            pub(super) static LOOPS: Loops = Loops {
                encode_row,
                decode_row,
                pack,
                unpack,
                widen,
                narrow,
                search_group,
                tile,
                dots,
            };

            $(#[target_feature(enable = $features)])?
            fn encode_row(row: &mut EncodeRow) -> bool {
                crate::row::encode_row::<$halves>(row)
            }

            $(#[target_feature(enable = $features)])?
            fn decode_row(row: &mut DecodeRow) {
                crate::row::decode_row::<$halves>(row);
            }

            $(#[target_feature(enable = $features)])?
            fn pack(codes: &[u8], bits: u32, stream: &mut [u8]) {
                crate::bits::pack(codes, bits, stream);
            }

            $(#[target_feature(enable = $features)])?
            fn unpack(stream: &[u8], bits: u32, codes: &mut [u8]) {
                crate::bits::unpack(stream, bits, codes);
            }

            $(#[target_feature(enable = $features)])?
            fn widen(float_type: FloatType, bytes: &[u8], values: &mut [f32]) {
                crate::float::widen::<$halves>(float_type, bytes, values);
            }

            $(#[target_feature(enable = $features)])?
            fn narrow(float_type: FloatType, values: &[f32], bytes: &mut [u8]) {
                crate::float::narrow::<$halves>(float_type, values, bytes);
            }

            $(#[target_feature(enable = $features)])?
            fn search_group(group: &Group, scratch: &mut SearchScratch, codes: &mut [u8]) -> Affine {
                crate::search::search(group, scratch, codes)
            }

            $(#[target_feature(enable = $features)])?
            fn tile(tile: &mut Tile) {
                crate::products::tile(tile);
            }

            $(#[target_feature(enable = $features)])?
            fn dots(dots: &Dots) -> [f64; 4] {
                crate::products::dots(dots)
            }
        }
    };
}

#[cfg(target_arch = "x86_64")]
compile_loops!(avx512, true, "avx512f,avx512bw,avx512vl,avx2");
#[cfg(target_arch = "x86_64")]
compile_loops!(avx2, true, "avx2");
#[cfg(target_arch = "aarch64")]
compile_loops!(neon, true);
compile_loops!(scalar, false);

#[cfg(test)]
mod tests;
