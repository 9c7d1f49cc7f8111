//! What kernels run on: memory, compiling, launching, copying. Work is done in the order it is asked for; only
//! [`Queue::download`] and [`Queue::wait`] wait for it. A failure of earlier work shows up in one of the next calls.

use bytes::Bytes;

use crate::Error;

/// The language that [`Queue::compile`] reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KernelLanguage {
    /// The Metal Shading Language.
    Metal,
    /// CUDA C++.
    Cuda,
    /// A language of which only the queue knows: the header that spells the words of kernels in it.
    Other(&'static str),
}

/// What a device can do. Kernels are chosen by this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Features {
    /// A simdgroup multiplies 8 x 8 matrices in a unit of its own (Apple GPUs).
    pub simdgroup_matrices: bool,
    /// A simdgroup multiplies 16 x 16 by 16 x 8 matrices (`mma.sync` of CUDA's tensor cores).
    pub tensor_cores: bool,
    /// 4 simdgroups multiply matrices together (`wgmma` of CUDA's sm_90a).
    pub warpgroups: bool,
    /// Multiprocessors that threadgroups are shared out to; a guess where the device does not say.
    pub multiprocessors: u32,
}

/// Device memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// Still to be had.
    pub free_bytes: u64,
    /// All that this process may use.
    pub total_bytes: u64,
    /// What the queue's buffers take.
    pub used_bytes: u64,
}

/// Bytes that one ticket holds.
pub const TICKET_BYTES: usize = 1024;
/// Tickets that may be open.
pub const MOST_TICKETS: usize = 8;

/// A kernel to compile.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What people call it, for messages.
    pub name: &'a str,
    /// Complete text in the queue's language: header, definitions, kernels.
    pub text: &'a str,
    /// The kernel function in it.
    pub entry: &'a str,
}

/// An argument of a kernel, by position.
pub enum Argument<'a, Q: Queue> {
    /// Memory from this byte on.
    Buffer(&'a Q::Buffer, usize),
    /// A small value: `constant T&` in Metal, `T` in CUDA. At most 4 KB.
    Value(&'a [u8]),
}

/// One run of a kernel.
pub struct Launch<'a, Q: Queue> {
    /// What runs.
    pub kernel: &'a Q::Kernel,
    /// Threadgroups.
    pub grid: [u32; 3],
    /// Threads of a threadgroup.
    pub threads: [u32; 3],
    /// Bytes of `[[threadgroup(0)]]`; 0 for a kernel without.
    pub threadgroup_bytes: u32,
    /// In the order of the kernel's parameters.
    pub arguments: &'a [Argument<'a, Q>],
    /// May overlap the previous launch and everything that one overlaps. No launch of such a group writes what another accesses.
    pub overlaps: bool,
}

/// A device with one line of work.
pub trait Queue: Send + Sync + Sized + 'static {
    /// Device memory; given back when dropped and no longer in use by launched work.
    type Buffer: Send + Sync + 'static;
    /// A compiled kernel.
    type Kernel: Send + Sync + 'static;
    /// Some bytes on their way from the device.
    type Ticket: Send + Sync + 'static;

    /// The language that [`Queue::compile`] reads.
    fn language(&self) -> KernelLanguage;

    /// The device's name.
    fn device(&self) -> &str;

    /// What the device can do.
    fn features(&self) -> Features;

    /// What can still be allocated.
    ///
    /// # Errors
    /// A lost device.
    fn memory(&self) -> Result<Memory, Error>;

    /// Zeros.
    ///
    /// # Errors
    /// Out of memory.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer, Error>;

    /// Constant bytes where kernels can read them, and the byte of the buffer at which they begin: the same memory where
    /// the device can share it, a copy otherwise.
    ///
    /// # Errors
    /// Out of memory.
    fn place(&self, bytes: &Bytes) -> Result<(Self::Buffer, usize), Error>;

    /// Copies `bytes` into the buffer from `offset` on. They may be changed as soon as this returns.
    ///
    /// # Errors
    /// A lost device.
    ///
    /// # Panics
    /// If they do not fit.
    fn upload(&self, bytes: &[u8], buffer: &Self::Buffer, offset: usize) -> Result<(), Error>;

    /// Copies `bytes` bytes from the start of one buffer to the start of another.
    ///
    /// # Errors
    /// A lost device.
    ///
    /// # Panics
    /// If one is shorter.
    fn copy(&self, from: &Self::Buffer, to: &Self::Buffer, bytes: usize) -> Result<(), Error>;

    /// Waits for all work, then copies from the buffer from `offset` on.
    ///
    /// # Errors
    /// A lost device, or earlier work that failed.
    ///
    /// # Panics
    /// If there are not so many bytes.
    fn download(&self, buffer: &Self::Buffer, offset: usize, bytes: &mut [u8]) -> Result<(), Error>;

    /// Begins to copy at most [`TICKET_BYTES`] bytes from the buffer from `offset` on, after all work launched so far; a pass of a model
    /// ends here. At most [`MOST_TICKETS`] may be open, and the bytes must stay as they are so long.
    ///
    /// # Errors
    /// A lost device.
    ///
    /// # Panics
    /// If there are not so many bytes.
    fn begin_download(&self, buffer: &Self::Buffer, offset: usize, bytes: usize) -> Result<Self::Ticket, Error>;

    /// Waits for the bytes, and for nothing that was launched after [`Queue::begin_download`].
    ///
    /// # Errors
    /// A lost device, or earlier work that failed.
    fn finish_download(&self, ticket: Self::Ticket, bytes: &mut [u8]) -> Result<(), Error>;

    /// What is launched from now on belongs to another pass of a model, which may be like one before it.
    ///
    /// # Errors
    /// A lost device.
    fn begin_pass(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Lets the device begin what was launched, if it does not yet, and waits for nothing.
    ///
    /// # Errors
    /// A lost device, or earlier work that failed.
    fn flush(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Machine code for this device, from the disk if the same text was compiled before.
    ///
    /// # Errors
    /// Text that the compiler refuses, or no compiler.
    fn compile(&self, source: &Source<'_>) -> Result<Self::Kernel, Error>;

    /// Runs a kernel after all earlier work.
    ///
    /// # Errors
    /// A lost device, or a launch that the device refuses.
    fn launch(&self, launch: &Launch<'_, Self>) -> Result<(), Error>;

    /// Waits for all work.
    ///
    /// # Errors
    /// A lost device, or earlier work that failed.
    fn wait(&self) -> Result<(), Error>;
}
