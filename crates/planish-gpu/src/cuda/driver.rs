//! The device, its context, and the driver's errors in words that a user can act on.

use cudarc::driver::{result, sys};

use super::library;
use crate::{Error, Memory};

const VENDOR: &str = "NVIDIA";
/// The driver must support this CUDA version: its graph calls are used.
const NEEDED: i32 = 12_000;
/// From this one on, graphs know kernels that start before the kernel before them is done.
const STARTS_EARLY: i32 = 12_030;

/// One GPU with the context that all of this process shares.
pub(super) struct Device {
    pub(super) name: String,
    /// As 90 for 9.0.
    pub(super) capability: u32,
    /// CUDA version of the driver, as 13000 for 13.0.
    pub(super) driver: i32,
    pub(super) multiprocessors: u32,
    handle: sys::CUdevice,
    context: sys::CUcontext,
}

impl Device {
    /// The one of this number among those that the driver shows.
    pub(super) fn numbered(index: i32) -> Result<Device, Error> {
        if !library::is_driver_present() {
            return Err(Error::NoDriver { vendor: VENDOR });
        }
        let absent = |error: result::DriverError| Error::NoDevice {
            vendor: VENDOR,
            reason: describe(error),
        };
        let driver = driver_version().map_err(absent)?;
        if driver < NEEDED {
            return Err(Error::OldDriver {
                found: version_text(driver),
                needed: version_text(NEEDED),
            });
        }
        result::init().map_err(absent)?;
        let handle = result::device::get(index).map_err(absent)?;
        // SAFETY: the device exists.
        let context = unsafe { result::primary_ctx::retain(handle) }.map_err(absent)?;
        let attribute = |attribute| {
            // SAFETY: the device exists.
            unsafe { result::device::get_attribute(handle, attribute) }.map_err(absent)
        };
        use sys::CUdevice_attribute_enum as Attribute;
        let major = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(Device {
            name: result::device::get_name(handle).map_err(absent)?,
            capability: (10 * major + minor).unsigned_abs(),
            driver,
            multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?
                .unsigned_abs()
                .max(1),
            handle,
            context,
        })
    }

    /// Makes the device current for this thread.
    pub(super) fn enter(&self) -> Result<(), Error> {
        // SAFETY: the context lives as long as `self`.
        unsafe { result::ctx::set_current(self.context) }.map_err(|error| self.error("choosing the device", error))
    }

    /// Makes the device current for this thread until the guard is dropped.
    pub(super) fn visit(&self) -> Result<Visit, Error> {
        let mut before = std::ptr::null_mut();
        // SAFETY: writes one handle.
        unsafe { sys::cuCtxGetCurrent(&mut before) }
            .result()
            .map_err(|error| self.error("asking for the device", error))?;
        let is_current = before == self.context;
        if !is_current {
            self.enter()?;
        }
        Ok(Visit {
            before: (!is_current).then_some(before),
        })
    }

    /// Whether kernels can start before the kernel before them is done: from Hopper on.
    pub(super) fn starts_early(&self) -> bool {
        self.capability >= 90 && self.driver >= STARTS_EARLY
    }

    pub(super) fn memory(&self) -> Result<Memory, Error> {
        let (free, total) = result::mem_get_info().map_err(|error| self.error("asking for free memory", error))?;
        Ok(Memory {
            free_bytes: free as u64,
            total_bytes: total as u64,
            used_bytes: 0,
        })
    }

    /// Why `bytes` could not be allocated.
    pub(super) fn allocation_error(&self, bytes: usize, error: result::DriverError) -> Error {
        if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return self.error("allocating memory", error);
        }
        let (free, total) = result::mem_get_info().unwrap_or_default();
        Error::OutOfMemory {
            device: self.name.clone(),
            needed_bytes: bytes as u64,
            free_bytes: free as u64,
            total_bytes: total as u64,
        }
    }

    /// Why `call` failed.
    pub(super) fn error(&self, call: &'static str, error: result::DriverError) -> Error {
        let (device, reason) = (self.name.clone(), describe(error));
        use sys::CUresult as Code;
        match error.0 {
            Code::CUDA_ERROR_ILLEGAL_ADDRESS
            | Code::CUDA_ERROR_LAUNCH_FAILED
            | Code::CUDA_ERROR_LAUNCH_TIMEOUT
            | Code::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | Code::CUDA_ERROR_MISALIGNED_ADDRESS
            | Code::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | Code::CUDA_ERROR_INVALID_PC
            | Code::CUDA_ERROR_HARDWARE_STACK_ERROR
            | Code::CUDA_ERROR_ASSERT
            | Code::CUDA_ERROR_ECC_UNCORRECTABLE
            | Code::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | Code::CUDA_ERROR_DEVICE_UNAVAILABLE => Error::Lost { device, reason },
            Code::CUDA_ERROR_OUT_OF_MEMORY => self.allocation_error(0, error),
            _ => Error::Call { device, call, reason },
        }
    }
}

/// A device that is current for a while, in a thread whose own it need not be.
pub(super) struct Visit {
    before: Option<sys::CUcontext>,
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: what was current before, none included; a failure means that it is gone.
            let _ = unsafe { sys::cuCtxSetCurrent(before) };
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: retained once in `numbered`; a failure means that the driver is shutting down.
        let _ = unsafe { result::primary_ctx::release(self.handle) };
    }
}

fn driver_version() -> Result<i32, result::DriverError> {
    let mut version = 0;
    // SAFETY: writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result()?;
    Ok(version)
}

fn version_text(version: i32) -> String {
    format!("{}.{}", version / 1000, version % 1000 / 10)
}

/// The driver's name and words for an error.
pub(super) fn describe(error: result::DriverError) -> String {
    match error.error_string() {
        Ok(text) => format!("{:?}: {}", error.0, text.to_string_lossy()),
        Err(_) => format!("{:?}", error.0),
    }
}
