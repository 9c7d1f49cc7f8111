//! Kernels as guests of another library: on its streams, over its memory, in the primary context that all of a process shares. Nothing is
//! allocated, waited for or recorded, so that the other library may capture what is launched.

use std::os::raw::c_void;

use cudarc::driver::sys;

use super::driver::{Device, Visit};
use super::graph::start;
use super::{CudaKernel, CudaQueue, pointer_to};
use crate::{CodeCache, Error, Queue, Source};

/// Addresses of a launch, at most.
const MOST_ADDRESSES: usize = 16;

/// One run of a kernel over memory of others.
pub struct GuestLaunch<'a> {
    /// What runs.
    pub kernel: &'a CudaKernel,
    /// Threadgroups.
    pub grid: [u32; 3],
    /// Threads of a threadgroup.
    pub threads: [u32; 3],
    /// Bytes of dynamic shared memory.
    pub threadgroup_bytes: u32,
    /// The device's addresses of the kernel's buffers, in the order of its parameters.
    pub addresses: &'a [u64],
    /// The constants, which follow the buffers.
    pub constants: &'a [u8],
}

/// The device of a queue, and a mode in which a capture of the other library goes on whatever this thread does.
struct Guest {
    mode: sys::CUstreamCaptureMode,
    _visit: Visit,
}

impl CudaQueue {
    /// The GPU of this number among those that the driver shows, for launches on streams of others.
    ///
    /// # Errors
    /// As [`CudaQueue::new`].
    pub fn of_device(index: usize) -> Result<CudaQueue, Error> {
        let device = Device::numbered(i32::try_from(index).unwrap_or(i32::MAX))?;
        let _visit = device.visit()?;
        CudaQueue::of(device, CodeCache::of_user())
    }

    /// As [`Queue::compile`], from a thread whose device is another library's, perhaps while that captures a stream.
    ///
    /// # Errors
    /// As [`Queue::compile`].
    pub fn compile_for_guest(&self, source: &Source<'_>) -> Result<CudaKernel, Error> {
        let _guest = Guest::new(&self.inner.device)?;
        self.compile(source)
    }

    /// Runs a kernel on a stream of another library (a `CUstream`, or 0), after what that holds already.
    ///
    /// # Errors
    /// A lost device, or a launch that the device refuses.
    ///
    /// # Safety
    /// The stream is of this device, and the kernel's problem fits what lies at the addresses, which stays there until the work is done.
    ///
    /// # Panics
    /// With more than 16 addresses.
    pub unsafe fn launch_on(&self, stream: usize, launch: &GuestLaunch<'_>) -> Result<(), Error> {
        let inner = &self.inner;
        let _visit = inner.device.visit()?;
        let function = launch.kernel.function;
        // More than kernels have without asking for it.
        if launch.threadgroup_bytes > 0 {
            let mut state = inner.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            inner.grant_shared(&mut state, function, launch.threadgroup_bytes)?;
        }
        let count = launch.addresses.len();
        assert!(count <= MOST_ADDRESSES, "{count} addresses");
        let mut words = [0; MOST_ADDRESSES];
        words[..count].copy_from_slice(launch.addresses);
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_ADDRESSES + 1];
        for (pointer, word) in pointers.iter_mut().zip(&mut words) {
            *pointer = pointer_to(word);
        }
        // The driver reads the constants and writes nothing there.
        pointers[count] = launch.constants.as_ptr().cast_mut().cast();
        let shape = (launch.grid, launch.threads, launch.threadgroup_bytes);
        let stream = std::ptr::with_exposed_provenance_mut(stream);
        start((function, launch.kernel.early), shape, &mut pointers[..=count], stream)
            .map_err(|error| inner.device.error("starting a kernel", error))
    }
}

impl Guest {
    fn new(device: &Device) -> Result<Guest, Error> {
        let visit = device.visit()?;
        let mut mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: exchanges this thread's mode, which is put back when the guest goes.
        unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) }
            .result()
            .map_err(|error| device.error("leaving a capture alone", error))?;
        Ok(Guest { mode, _visit: visit })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // SAFETY: as in `new`.
        let _ = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut self.mode) };
    }
}
