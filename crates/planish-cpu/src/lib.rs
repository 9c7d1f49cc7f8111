//! Hand-written SIMD kernels for packed weights, chosen at run time from one table.
//!
//! All values are f32 outside; weights are read in place in the format's own layout (see planish-format), mapped files
//! included, at any alignment. [`Cpu`] is the way in: it owns the threads and has one instruction set of the table.
//! What else a model computes (norms, rotation, attention, activations) runs on the same pool; see [`vector`].

mod activation;
mod add;
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod amx;
mod arena;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod channel_scan;
mod choose;
mod convolution;
mod cores;
mod cpu;
mod cut;
mod experts;
mod floats;
mod heads;
mod huge;
mod input;
mod interleaved;
mod key_values;
mod limits;
mod matrix;
mod memory;
mod mix;
#[cfg(target_arch = "aarch64")]
mod neon;
mod norm;
mod ops;
mod piece;
mod pool;
mod recurrence;
mod rope;
mod route;
mod scalar;
mod scratch;
mod share;
mod table;
pub mod vector;

pub use arena::Arena;
pub use choose::{Candidate, Chooser, CpuChosen, drawn};
pub use cores::physical_cores;
pub use cpu::{Backward, Cpu, Linear, Matmul, MatmulEach, Precision, Rounding, instruction_sets};
pub use floats::{Floats, FloatsMut};
pub use huge::{advise_huge, huge_vec};
pub use interleaved::Interleaved;
pub use key_values::{KeyValueShape, KeyValues};
pub use limits::{MEMORY_BYTES, operation_rate, read_rate};
pub use matrix::CpuMatrix;
pub use ops::{CpuOps, CpuSequences, CpuStack, CpuTensor};
pub use planish_format::memory::OutOfMemory;
pub use pool::{Crew, Pool};
pub use recurrence::Coefficients;
pub use route::{Choices, route};
