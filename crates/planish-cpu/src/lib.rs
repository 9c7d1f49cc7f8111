//! Hand-written SIMD kernels for packed weights, chosen at run time from one table.
//!
//! All values are f32 outside; weights are read in place in the format's own layout (see planish-format), mapped files
//! included, at any alignment. [`Cpu`] is the way in: it owns the threads and has one instruction set of the table.

mod cpu;
mod input;
mod matrix;
mod pool;
mod scalar;
mod scratch;
mod table;

pub use cpu::{Cpu, CpuError, Matmul, Precision, instruction_sets};
pub use matrix::{Matrix, PlainMatrix};
pub use pool::{Pool, physical_cores};
