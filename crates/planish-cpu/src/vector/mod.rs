//! Element-wise and attention kernels over f32 rows: one text, compiled for each instruction set.
//!
//! [`Lanes`] spells one vector register; the bodies in `bodies.rs` are generic over it and are inlined into entry points
//! that enable the instruction set (`entries.rs`).

mod bodies;
mod entries;
mod exp;
mod lanes;
mod states;
mod table;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(crate) use entries::NEON;
pub(crate) use entries::PORTABLE;
#[cfg(target_arch = "x86_64")]
pub(crate) use entries::{AVX2, AVX512};
pub use states::{ConvolutionRow, SCAN_CHANNELS, STRIP, ScanRow, StateStep};
pub(crate) use table::ProductElement;
pub use table::{NormRow, PositionBias, Product, SoftmaxBlock, VectorFunctions};

/// The kernels for an instruction set. Calling them is safe where the machine has it ([`planish_format::Isa::is_supported`]).
pub fn vector_functions(isa: planish_format::Isa) -> &'static VectorFunctions {
    crate::table::row(isa).vector
}
