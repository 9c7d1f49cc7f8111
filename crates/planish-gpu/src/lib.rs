//! Running kernels: one narrow trait, [`Queue`], and an implementation for each kind of GPU.
//!
//! A queue allocates device memory, compiles kernel text for its device (and remembers the result on disk), launches
//! kernels in order, and copies. It knows nothing of models or of what the kernels compute.

mod code_cache;
#[cfg(any(target_os = "linux", target_os = "windows"))]
mod cuda;
mod error;
mod queue;

pub use code_cache::CodeCache;
#[cfg(any(target_os = "linux", target_os = "windows"))]
pub use cuda::{CudaBuffer, CudaKernel, CudaQueue};
pub use error::Error;
pub use queue::{Argument, Dialect, Launch, Memory, Queue, Source};
