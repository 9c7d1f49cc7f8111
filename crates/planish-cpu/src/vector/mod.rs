//! Element-wise and attention kernels over f32 rows: one text, compiled for each instruction set.
//!
//! [`Lanes`] spells one vector register; the bodies in `bodies.rs` are generic over it and are inlined into entry points
//! that enable the instruction set. [`VARIANTS`] lists these, best first.

mod bodies;
mod exp;
mod lanes;
mod states;
mod table;

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use states::{ConvolutionRow, STRIP, StateStep};
pub(crate) use table::ProductElement;
pub use table::{NormRow, PositionBias, Product, SoftmaxBlock, VARIANTS, Variant, VectorFunctions, vector_functions};
