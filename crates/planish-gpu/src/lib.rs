//! Running kernels: one narrow trait, [`Queue`], and an implementation for each kind of GPU.
//!
//! A queue allocates device memory, compiles kernel text for its device (and remembers the result on disk), launches
//! kernels in order, and copies. It knows nothing of models or of what the kernels compute.

mod code_cache;
#[cfg(any(target_os = "linux", target_os = "windows"))]
mod cuda;
mod error;
#[cfg(target_vendor = "apple")]
mod metal;
mod queue;

pub use code_cache::CodeCache;
#[cfg(any(target_os = "linux", target_os = "windows"))]
pub use cuda::{CudaBuffer, CudaKernel, CudaQueue, CudaTicket, GuestLaunch};
pub use error::Error;
#[cfg(target_vendor = "apple")]
pub use metal::{MetalBuffer, MetalKernel, MetalQueue, MetalTicket};
pub use queue::{Argument, Features, KernelLanguage, Launch, MOST_TICKETS, Memory, Queue, Source, TICKET_BYTES};
