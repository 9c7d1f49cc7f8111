//! Apple GPUs through Metal (macOS 13 and later). Memory is shared with the processor: weights that the program has mapped are
//! read where they lie.
//!
//! Launches are encoded into one command buffer, which [`Queue::download`], [`Queue::begin_download`] and [`Queue::wait`] commit. The
//! encoder is a concurrent one with a barrier before every launch that is not [`Launch::overlaps`] the last. This file was
//! type-checked for aarch64-apple-darwin; it has not run on Apple hardware.

mod encode;
mod pipeline;

use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use objc2::rc::Retained;
use objc2::runtime::{AnyClass, ProtocolObject};
use objc2_metal::{
    MTLBuffer, MTLCommandQueue, MTLCreateSystemDefaultDevice, MTLDevice, MTLResidencySet, MTLResidencySetDescriptor,
    MTLResourceOptions,
};

use crate::{CodeCache, Error, Features, KernelLanguage, Launch, Memory, Queue, Source};
use encode::{Committed, Encoder};
pub use pipeline::MetalKernel;

/// Kernels read tensors from addresses that are multiples of this.
const ALIGNMENT_BYTES: usize = 16;
/// Metal does not say how many cores a GPU has.
const GUESSED_CORES: u32 = 32;

// `MTLCreateSystemDefaultDevice` needs it on macOS.
#[link(name = "CoreGraphics", kind = "framework")]
unsafe extern "C" {}

/// The system's GPU and its line of work.
pub struct MetalQueue {
    inner: Arc<Inner>,
    name: String,
    cache: CodeCache,
}

struct Inner {
    device: Retained<ProtocolObject<dyn MTLDevice>>,
    queue: Retained<ProtocolObject<dyn MTLCommandQueue>>,
    /// Keeps memory wired between command buffers; macOS 15 and later.
    residency: Option<Retained<ProtocolObject<dyn MTLResidencySet>>>,
    encoder: Mutex<Encoder>,
}

// SAFETY: devices, queues and residency sets may be used from any thread; the encoder is in the mutex.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// Memory that the GPU and the processor share.
pub struct MetalBuffer {
    inner: Arc<Inner>,
    buffer: Retained<ProtocolObject<dyn MTLBuffer>>,
    /// What a buffer over the program's own memory reads.
    mapped: Option<Bytes>,
}

// SAFETY: Metal's buffers may be used from any thread; the processor touches the contents only when no work is under way.
unsafe impl Send for MetalBuffer {}
// SAFETY: as above.
unsafe impl Sync for MetalBuffer {}

/// Bytes that are there once a command buffer is done.
pub struct MetalTicket {
    committed: Option<Committed>,
    contents: *const u8, // (bytes)
    bytes: usize,
    /// Keeps the contents.
    _buffer: Retained<ProtocolObject<dyn MTLBuffer>>,
}

// SAFETY: Metal's objects may be used from any thread; the contents are read when the command buffer is done.
unsafe impl Send for MetalTicket {}
// SAFETY: as above.
unsafe impl Sync for MetalTicket {}

impl MetalQueue {
    /// The system's default GPU.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> Result<MetalQueue, Error> {
        MetalQueue::with_cache(CodeCache::of_user())
    }

    /// As [`MetalQueue::new`], with compiled kernels kept elsewhere.
    ///
    /// # Errors
    /// As [`MetalQueue::new`].
    pub fn with_cache(cache: CodeCache) -> Result<MetalQueue, Error> {
        let absent = |reason: &str| Error::NoDevice {
            vendor: "Metal",
            reason: reason.to_owned(),
        };
        let device = MTLCreateSystemDefaultDevice().ok_or_else(|| absent("the system has no default device"))?;
        if !device.hasUnifiedMemory() {
            return Err(absent(
                "its memory is not shared with the processor; Apple silicon is needed",
            ));
        }
        let queue = device
            .newCommandQueue()
            .ok_or_else(|| absent("it gives no command queue"))?;
        let residency = residency_set(&device);
        if let Some(set) = &residency {
            queue.addResidencySet(set);
        }
        Ok(MetalQueue {
            name: device.name().to_string(),
            inner: Arc::new(Inner {
                device,
                queue,
                residency,
                encoder: Mutex::default(),
            }),
            cache,
        })
    }

    fn buffer(&self, buffer: Retained<ProtocolObject<dyn MTLBuffer>>, mapped: Option<Bytes>) -> MetalBuffer {
        if let Some(set) = &self.inner.residency {
            set.addAllocation(ProtocolObject::from_ref(&*buffer));
            set.commit();
        }
        MetalBuffer {
            inner: Arc::clone(&self.inner),
            buffer,
            mapped,
        }
    }

    fn out_of_memory(&self, bytes: usize) -> Error {
        let Memory {
            free_bytes,
            total_bytes,
            ..
        } = self.inner.memory();
        Error::OutOfMemory {
            device: self.name.clone(),
            needed_bytes: bytes as u64,
            free_bytes,
            total_bytes,
        }
    }

    /// A command buffer that ran out of memory does not know how much there is.
    fn in_full<T>(&self, outcome: Result<T, Error>) -> Result<T, Error> {
        outcome.map_err(|error| match error {
            Error::OutOfMemory { .. } => self.out_of_memory(0),
            other => other,
        })
    }

    /// A buffer over the pages that hold `bytes`; `None` if Metal does not take them.
    fn share(&self, bytes: &Bytes) -> Option<(MetalBuffer, usize)> {
        let address = bytes.as_ptr() as usize;
        if bytes.is_empty() || !address.is_multiple_of(ALIGNMENT_BYTES) {
            return None;
        }
        let page = page_bytes();
        let start = address / page * page;
        let length = (address + bytes.len() - start).next_multiple_of(page);
        if length > self.inner.device.maxBufferLength() {
            return None;
        }
        let pointer = NonNull::new(start as *mut c_void)?;
        let options = MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
        // SAFETY: whole pages that hold the bytes, which live until the buffer is dropped and no work uses it; kernels only read
        // constants. Nothing is to be freed by Metal.
        let buffer = unsafe {
            self.inner
                .device
                .newBufferWithBytesNoCopy_length_options_deallocator(pointer, length, options, None)
        }?;
        Some((self.buffer(buffer, Some(bytes.clone())), address - start))
    }
}

impl Inner {
    fn encoder(&self) -> MutexGuard<'_, Encoder> {
        self.encoder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn memory(&self) -> Memory {
        let total_bytes = self.device.recommendedMaxWorkingSetSize();
        let used = self.device.currentAllocatedSize() as u64;
        Memory {
            free_bytes: total_bytes.saturating_sub(used),
            total_bytes,
            used_bytes: used,
        }
    }
}

impl MetalBuffer {
    /// The bytes, as the processor sees them. Only to be used while no work is under way.
    fn contents(&self, offset: usize, bytes: usize) -> *mut u8 {
        assert!(
            offset + bytes <= self.buffer.length(),
            "{bytes} bytes at {offset} of {}",
            self.buffer.length()
        );
        // SAFETY: inside of the buffer.
        unsafe { self.buffer.contents().as_ptr().cast::<u8>().add(offset) }
    }
}

impl Drop for MetalBuffer {
    fn drop(&mut self) {
        // Command buffers keep the buffers that they use, but not the program's memory under them.
        if self.mapped.is_some() {
            self.inner.encoder().settle();
        }
        if let Some(set) = &self.inner.residency {
            set.removeAllocation(ProtocolObject::from_ref(&*self.buffer));
            set.commit();
        }
    }
}

impl Queue for MetalQueue {
    type Buffer = MetalBuffer;
    type Kernel = MetalKernel;
    type Ticket = MetalTicket;

    fn language(&self) -> KernelLanguage {
        KernelLanguage::Metal
    }

    fn features(&self) -> Features {
        Features {
            simdgroup_matrices: true,
            tensor_cores: false,
            warpgroups: false,
            multiprocessors: GUESSED_CORES,
        }
    }

    fn device(&self) -> &str {
        &self.name
    }

    fn memory(&self) -> Result<Memory, Error> {
        Ok(self.inner.memory())
    }

    fn allocate(&self, bytes: usize) -> Result<MetalBuffer, Error> {
        // Shared buffers come cleared.
        let options = MTLResourceOptions::StorageModeShared | MTLResourceOptions::HazardTrackingModeUntracked;
        let buffer = self
            .inner
            .device
            .newBufferWithLength_options(bytes.max(ALIGNMENT_BYTES), options);
        let buffer = buffer.ok_or_else(|| self.out_of_memory(bytes))?;
        Ok(self.buffer(buffer, None))
    }

    fn place(&self, bytes: &Bytes) -> Result<(MetalBuffer, usize), Error> {
        if let Some(shared) = self.share(bytes) {
            return Ok(shared);
        }
        let buffer = self.allocate(bytes.len())?;
        self.upload(bytes, &buffer, 0)?;
        Ok((buffer, 0))
    }

    fn upload(&self, bytes: &[u8], buffer: &MetalBuffer, offset: usize) -> Result<(), Error> {
        self.wait()?;
        let target = buffer.contents(offset, bytes.len());
        // SAFETY: inside of the buffer, which no work uses now.
        unsafe { target.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(())
    }

    fn copy(&self, from: &MetalBuffer, to: &MetalBuffer, bytes: usize) -> Result<(), Error> {
        self.wait()?;
        let (source, target) = (from.contents(0, bytes), to.contents(0, bytes));
        // SAFETY: inside of two different buffers, which no work uses now.
        unsafe { target.copy_from(source, bytes) };
        Ok(())
    }

    fn download(&self, buffer: &MetalBuffer, offset: usize, bytes: &mut [u8]) -> Result<(), Error> {
        self.wait()?;
        let source = buffer.contents(offset, bytes.len());
        // SAFETY: inside of the buffer, which no work uses now.
        unsafe { source.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn begin_download(&self, buffer: &MetalBuffer, offset: usize, bytes: usize) -> Result<MetalTicket, Error> {
        Ok(MetalTicket {
            committed: self.in_full(self.inner.encoder().hand_over(&self.name))?,
            contents: buffer.contents(offset, bytes),
            bytes,
            _buffer: buffer.buffer.clone(),
        })
    }

    fn finish_download(&self, ticket: MetalTicket, bytes: &mut [u8]) -> Result<(), Error> {
        assert_eq!(bytes.len(), ticket.bytes);
        if let Some(committed) = &ticket.committed {
            self.in_full(encode::wait(committed, &self.name))?;
        }
        // SAFETY: inside of the buffer, and written before the command buffer was done. Later work writes elsewhere.
        unsafe { ticket.contents.copy_to_nonoverlapping(bytes.as_mut_ptr(), bytes.len()) };
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        self.in_full(self.inner.encoder().hand_over(&self.name)).map(drop)
    }

    fn compile(&self, source: &Source<'_>) -> Result<MetalKernel, Error> {
        pipeline::compile(&self.inner.device, &self.name, &self.cache, source)
    }

    fn launch(&self, launch: &Launch<'_, MetalQueue>) -> Result<(), Error> {
        self.inner.encoder().launch(&self.inner.queue, &self.name, launch)
    }

    fn wait(&self) -> Result<(), Error> {
        self.in_full(self.inner.encoder().finish(&self.name))
    }
}

/// Sets exist from macOS 15 on.
fn residency_set(device: &ProtocolObject<dyn MTLDevice>) -> Option<Retained<ProtocolObject<dyn MTLResidencySet>>> {
    AnyClass::get(c"MTLResidencySetDescriptor")?;
    let set = device
        .newResidencySetWithDescriptor_error(&MTLResidencySetDescriptor::new())
        .ok()?;
    set.requestResidency();
    Some(set)
}

fn page_bytes() -> usize {
    // SAFETY: asks for a constant of the system.
    let bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(bytes).unwrap_or(16 << 10)
}
