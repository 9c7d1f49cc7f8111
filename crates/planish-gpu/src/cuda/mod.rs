//! NVIDIA GPUs through the driver's own interface. The libraries are opened at run time: a program with this module starts
//! on machines without them.
//!
//! One context, one stream. Launches are recorded and submitted in segments (`graph.rs`), code is compiled at run time
//! (`compile.rs`), and weights travel through pinned memory (`staging.rs`).

mod compile;
mod driver;
mod graph;
mod guest;
mod library;
mod staging;
mod tickets;

use std::collections::HashMap;
use std::ffi::CString;
use std::os::raw::c_void;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use cudarc::driver::{result, sys};

use crate::{Argument, CodeCache, Error, Features, KernelLanguage, Launch, Memory, Queue, Source};
use driver::{Device, describe};
use graph::Recorder;
pub use guest::GuestLaunch;
use staging::Staging;
pub use tickets::CudaTicket;
use tickets::Tickets;

/// One NVIDIA GPU and its line of work.
pub struct CudaQueue {
    inner: Arc<Inner>,
    cache: CodeCache,
}

struct Inner {
    device: Device,
    stream: sys::CUstream,
    state: Mutex<State>,
}

// SAFETY: the driver's handles may be used from any thread; what has state of ours is in the mutex.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

/// What changes with every call.
struct State {
    recorder: Recorder,
    staging: Staging,
    tickets: Tickets,
    /// Bytes of all buffers.
    used_bytes: u64,
    /// Memory that submitted work may still use; freed once that is done.
    dropped: Vec<sys::CUdeviceptr>,
    /// Functions that were granted dynamic shared memory, and how much.
    granted: HashMap<usize, u32>,
}

/// Memory on the GPU.
pub struct CudaBuffer {
    queue: Arc<Inner>,
    pointer: sys::CUdeviceptr,
    bytes: usize,
}

/// A function of a loaded module. Modules stay loaded as long as the process lives.
#[derive(Clone, Copy, Debug)]
pub struct CudaKernel {
    function: sys::CUfunction,
    /// It may start before the kernel before it is done.
    early: bool,
}

// SAFETY: a handle of the driver, usable from any thread.
unsafe impl Send for CudaKernel {}
// SAFETY: as above.
unsafe impl Sync for CudaKernel {}

impl CudaQueue {
    /// The first GPU that the driver shows (`CUDA_VISIBLE_DEVICES` chooses).
    ///
    /// # Errors
    /// No driver, an old one, or no device.
    pub fn new() -> Result<CudaQueue, Error> {
        CudaQueue::with_cache(CodeCache::of_user())
    }

    /// As [`CudaQueue::new`], with compiled kernels kept elsewhere.
    ///
    /// # Errors
    /// As [`CudaQueue::new`].
    pub fn with_cache(cache: CodeCache) -> Result<CudaQueue, Error> {
        CudaQueue::of(Device::numbered(0)?, cache)
    }

    fn of(device: Device, cache: CodeCache) -> Result<CudaQueue, Error> {
        device.enter()?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|error| device.error("making a stream", error))?;
        let state = State {
            recorder: Recorder::default(),
            staging: Staging::default(),
            tickets: Tickets::default(),
            used_bytes: 0,
            dropped: Vec::new(),
            granted: HashMap::new(),
        };
        Ok(CudaQueue {
            inner: Arc::new(Inner {
                device,
                stream,
                state: Mutex::new(state),
            }),
            cache,
        })
    }

    /// Compute capability, as 90 for 9.0.
    pub fn capability(&self) -> u32 {
        self.inner.device.capability
    }

    fn load(&self, source: &Source<'_>, code: &[u8]) -> Result<CudaKernel, Error> {
        let refuse = |error: result::DriverError| Error::Load {
            name: source.name.to_owned(),
            device: self.inner.device.name.clone(),
            reason: describe(error),
        };
        let entry = CString::new(source.entry).map_err(|_| Error::Load {
            name: source.name.to_owned(),
            device: self.inner.device.name.clone(),
            reason: format!("{:?} is not the name of a function", source.entry),
        })?;
        // SAFETY: `code` is a whole cubin, made by the compiler or checked by the cache.
        let module = unsafe { result::module::load_data(code.as_ptr().cast()) }.map_err(refuse)?;
        // SAFETY: the module was just loaded and is never unloaded.
        let function = unsafe { result::module::get_function(module, entry) }.map_err(refuse)?;
        Ok(CudaKernel {
            function,
            early: self.inner.device.starts_early() && compile::waits_for_previous(source),
        })
    }
}

impl Inner {
    /// The state, with the device made current for this thread.
    fn enter(&self) -> Result<MutexGuard<'_, State>, Error> {
        self.device.enter()?;
        // A panic elsewhere leaves nothing half done that matters here.
        Ok(self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn finish(&self, state: &mut State) -> Result<(), Error> {
        state
            .recorder
            .submit(self.stream)
            .map_err(|error| self.device.error("starting kernels", error))?;
        state.recorder.rewind();
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(|error| self.device.error("waiting for the device", error))?;
        for pointer in state.dropped.drain(..) {
            // SAFETY: allocated by this device, dropped by its owner, and no work is under way.
            unsafe { result::free_sync(pointer) }.map_err(|error| self.device.error("freeing memory", error))?;
        }
        Ok(())
    }

    fn submit(&self, state: &mut State) -> Result<(), Error> {
        state
            .recorder
            .submit(self.stream)
            .map_err(|error| self.device.error("starting kernels", error))
    }

    /// A kernel must say once how much dynamic shared memory it uses: without that it has 48 KiB less what is static, which only the
    /// driver knows.
    fn grant_shared(&self, state: &mut State, function: sys::CUfunction, bytes: u32) -> Result<(), Error> {
        let granted = state.granted.entry(function as usize).or_default();
        if bytes > *granted {
            let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            // SAFETY: the function belongs to a module that stays loaded.
            unsafe { result::function::set_function_attribute(function, attribute, bytes as i32) }
                .map_err(|error| self.device.error("reserving shared memory", error))?;
            *granted = bytes;
        }
        Ok(())
    }
}

impl Queue for CudaQueue {
    type Buffer = CudaBuffer;
    type Kernel = CudaKernel;
    type Ticket = CudaTicket;

    fn language(&self) -> KernelLanguage {
        KernelLanguage::Cuda
    }

    fn device(&self) -> &str {
        &self.inner.device.name
    }

    fn features(&self) -> Features {
        Features {
            simdgroup_matrices: false,
            tensor_cores: true,
            warpgroups: self.inner.device.capability == 90,
            multiprocessors: self.inner.device.multiprocessors,
        }
    }

    fn memory(&self) -> Result<Memory, Error> {
        let state = self.inner.enter()?;
        Ok(Memory {
            used_bytes: state.used_bytes,
            ..self.inner.device.memory()?
        })
    }

    fn allocate(&self, bytes: usize) -> Result<CudaBuffer, Error> {
        let mut state = self.inner.enter()?;
        if !state.dropped.is_empty() {
            self.inner.finish(&mut state)?;
        }
        let device = &self.inner.device;
        // SAFETY: plain allocation; the buffer frees it once.
        let pointer =
            unsafe { result::malloc_sync(bytes.max(1)) }.map_err(|error| device.allocation_error(bytes, error))?;
        state.used_bytes += bytes as u64;
        let buffer = CudaBuffer {
            queue: Arc::clone(&self.inner),
            pointer,
            bytes,
        };
        // SAFETY: the memory was just allocated with that size.
        unsafe { result::memset_d8_async(pointer, 0, bytes.max(1), self.inner.stream) }
            .map_err(|error| device.error("clearing memory", error))?;
        Ok(buffer)
    }

    fn place(&self, bytes: &Bytes) -> Result<(CudaBuffer, usize), Error> {
        let buffer = self.allocate(bytes.len())?;
        self.upload(bytes, &buffer, 0)?;
        Ok((buffer, 0))
    }

    fn upload(&self, bytes: &[u8], buffer: &CudaBuffer, offset: usize) -> Result<(), Error> {
        assert!(
            offset + bytes.len() <= buffer.bytes,
            "{} bytes at {offset} of {}",
            bytes.len(),
            buffer.bytes
        );
        let mut state = self.inner.enter()?;
        self.inner.submit(&mut state)?;
        state
            .staging
            .upload(bytes, buffer.pointer + offset as u64, self.inner.stream)
            .map_err(|error| self.inner.device.error("copying to the device", error))
    }

    fn copy(&self, from: &CudaBuffer, to: &CudaBuffer, bytes: usize) -> Result<(), Error> {
        assert!(bytes <= from.bytes && bytes <= to.bytes);
        let mut state = self.inner.enter()?;
        self.inner.submit(&mut state)?;
        // SAFETY: both buffers are alive, as long as that at least, and freed only after this copy is done.
        unsafe { result::memcpy_dtod_async(to.pointer, from.pointer, bytes, self.inner.stream) }
            .map_err(|error| self.inner.device.error("copying on the device", error))
    }

    fn download(&self, buffer: &CudaBuffer, offset: usize, bytes: &mut [u8]) -> Result<(), Error> {
        assert!(
            offset + bytes.len() <= buffer.bytes,
            "{} bytes at {offset} of {}",
            bytes.len(),
            buffer.bytes
        );
        let mut state = self.inner.enter()?;
        self.inner.submit(&mut state)?;
        for (index, piece) in bytes.chunks_mut(staging::PIECE_BYTES).enumerate() {
            let source = buffer.pointer + (offset + index * staging::PIECE_BYTES) as u64;
            let pinned = state
                .staging
                .begin_download(piece.len(), source, self.inner.stream)
                .map_err(|error| self.inner.device.error("copying from the device", error))?;
            self.inner.finish(&mut state)?;
            // SAFETY: pinned memory of at least that size, and the copy into it is done.
            piece.copy_from_slice(unsafe { std::slice::from_raw_parts(pinned, piece.len()) });
        }
        Ok(())
    }

    fn begin_download(&self, buffer: &CudaBuffer, offset: usize, bytes: usize) -> Result<CudaTicket, Error> {
        assert!(
            offset + bytes <= buffer.bytes,
            "{bytes} bytes at {offset} of {}",
            buffer.bytes
        );
        let mut state = self.inner.enter()?;
        self.inner.submit(&mut state)?;
        state.recorder.rewind();
        state
            .tickets
            .begin(buffer.pointer + offset as u64, bytes, self.inner.stream)
            .map_err(|error| self.inner.device.error("copying from the device", error))
    }

    fn finish_download(&self, ticket: CudaTicket, bytes: &mut [u8]) -> Result<(), Error> {
        let mut state = self.inner.enter()?;
        state
            .tickets
            .finish(&ticket, bytes)
            .map_err(|error| self.inner.device.error("waiting for the device", error))
    }

    fn begin_pass(&self) -> Result<(), Error> {
        let mut state = self.inner.enter()?;
        self.inner.submit(&mut state)?;
        state.recorder.rewind();
        Ok(())
    }

    fn flush(&self) -> Result<(), Error> {
        let mut state = self.inner.enter()?;
        self.inner.submit(&mut state)
    }

    fn compile(&self, source: &Source<'_>) -> Result<CudaKernel, Error> {
        let _state = self.inner.enter()?;
        let device = &self.inner.device;
        let options = compile::options(device.capability);
        let options_text = options.join(" ");
        let driver = device.driver.to_string();
        // The compiler's version is no part of the key: an installation without the compiler still finds its kernels.
        let key = ["cuda", &options_text, &driver, source.entry, source.text];
        if let Some(code) = self.cache.get(&key)
            && let Ok(kernel) = self.load(source, &code)
        {
            return Ok(kernel);
        }
        let code = compile::compile(source, &options, &device.name)?;
        let kernel = self.load(source, &code)?;
        self.cache.put(&key, &code);
        Ok(kernel)
    }

    fn launch(&self, launch: &Launch<'_, CudaQueue>) -> Result<(), Error> {
        let mut state = self.inner.enter()?;
        let function = launch.kernel.function;
        self.inner
            .grant_shared(&mut state, function, launch.threadgroup_bytes)?;
        let recorder = &mut state.recorder;
        for argument in launch.arguments {
            match argument {
                Argument::Buffer(buffer, offset) => recorder.argument(&(buffer.pointer + *offset as u64).to_le_bytes()),
                Argument::Value(bytes) => recorder.argument(bytes),
            }
        }
        recorder.step(launch);
        if recorder.is_full() {
            self.inner.submit(&mut state)?;
        }
        Ok(())
    }

    fn wait(&self) -> Result<(), Error> {
        let mut state = self.inner.enter()?;
        self.inner.finish(&mut state)
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        let mut state = self.queue.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.used_bytes -= self.bytes as u64;
        state.dropped.push(self.pointer);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if self.device.enter().is_err() {
            return;
        }
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        // SAFETY: nothing uses the stream after this; failures mean that the device is gone, and all of this with it.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            for pointer in state.dropped.drain(..) {
                let _ = result::free_sync(pointer);
            }
            state.recorder.release();
            state.staging.release();
            state.tickets.release();
            let _ = result::stream::destroy(self.stream);
        }
    }
}

/// A pointer to bytes as the driver wants it.
fn pointer_to(word: &mut u64) -> *mut c_void {
    std::ptr::from_mut(word).cast()
}
