//! Loading onto GPUs.

use std::sync::Arc;

use planish_format::FloatType;
use planish_gpu::Queue;
use planish_kernels::GpuOps;
use planish_ops::Tap;

use super::calibrating::GpuCalibrator;
use super::{Device, Job, Loaded, QuantizingDevice};
use crate::Error;
use crate::decoder::Decoder;
use crate::layers::{LayerEngine, On};

impl Job<'_> {
    #[cfg(any(target_os = "linux", target_os = "windows"))]
    pub(super) fn on_cuda(&self) -> Result<Loaded, Error> {
        self.on_queue("cuda", planish_gpu::CudaQueue::new())
    }

    #[cfg(not(any(target_os = "linux", target_os = "windows")))]
    pub(super) fn on_cuda(&self) -> Result<Loaded, Error> {
        Err(Error::DeviceAbsent { device: "cuda" })
    }

    #[cfg(target_vendor = "apple")]
    pub(super) fn on_metal(&self) -> Result<Loaded, Error> {
        self.on_queue("metal", planish_gpu::MetalQueue::new())
    }

    #[cfg(not(target_vendor = "apple"))]
    pub(super) fn on_metal(&self) -> Result<Loaded, Error> {
        Err(Error::DeviceAbsent { device: "metal" })
    }

    /// Loads onto the GPU behind a queue.
    pub(crate) fn on_queue<Q: Queue>(&self, kind: &str, queue: Result<Q, planish_gpu::Error>) -> Result<Loaded, Error> {
        let queue = queue.map_err(gpu_error)?;
        if self.options.cache.is_some() {
            let device = format!("{kind} ({})", queue.device());
            return Err(Error::CacheType { device });
        }
        self.check_memory(&queue)?;
        let device = format!("{kind} ({})", queue.device());
        // As many bits as the processor's brain floats have: range matters more than precision between layers.
        let value = match self.options.exact {
            true => FloatType::F32,
            false => FloatType::BF16,
        };
        let ops = GpuOps::new(queue, value).map_err(gpu_error)?;
        Ok(Loaded {
            engine: Box::new(Decoder::load(ops, self.architecture, self.source)?),
            device,
            threads: 1,
            notice: None,
        })
    }

    /// Fails before a long load that cannot end well.
    fn check_memory<Q: Queue>(&self, queue: &Q) -> Result<(), Error> {
        let memory = queue.memory().map_err(gpu_error)?;
        match self.source.bytes() {
            Some(needed_bytes) if needed_bytes > memory.free_bytes => Err(gpu_error(planish_gpu::Error::OutOfMemory {
                device: queue.device().to_owned(),
                needed_bytes,
                free_bytes: memory.free_bytes,
                total_bytes: memory.total_bytes,
            })),
            _ => Ok(()),
        }
    }
}

/// An NVIDIA GPU as one that quantizes, in f32.
#[cfg(any(target_os = "linux", target_os = "windows"))]
pub(super) fn quantizing_cuda() -> Result<QuantizingDevice, Error> {
    on_quantizing_queue("cuda", planish_gpu::CudaQueue::new())
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
pub(super) fn quantizing_cuda() -> Result<QuantizingDevice, Error> {
    Err(Error::DeviceAbsent { device: "cuda" })
}

pub(super) fn on_quantizing_queue<Q: Queue>(
    kind: &str,
    queue: Result<Q, planish_gpu::Error>,
) -> Result<QuantizingDevice, Error> {
    let queue = queue.map_err(gpu_error)?;
    let name = format!("{kind} ({})", queue.device());
    let ops = Arc::new(GpuOps::new(queue, FloatType::F32).map_err(gpu_error)?);
    Ok(QuantizingDevice {
        device: Device::Cuda,
        name,
        searcher: Some(ops.clone()),
        calibrator: Some(Arc::new(GpuCalibrator(ops))),
        notice: None,
    })
}

/// Layers in f32 on an NVIDIA GPU, which tells `tap` of products.
#[cfg(any(target_os = "linux", target_os = "windows"))]
pub(crate) fn layers_on_cuda(tap: Arc<dyn Tap>) -> Result<Box<dyn LayerEngine>, Error> {
    layers_on(planish_gpu::CudaQueue::new().map_err(gpu_error)?, tap)
}

#[cfg(not(any(target_os = "linux", target_os = "windows")))]
pub(crate) fn layers_on_cuda(_: Arc<dyn Tap>) -> Result<Box<dyn LayerEngine>, Error> {
    Err(Error::DeviceAbsent { device: "cuda" })
}

/// The same on the GPU behind a queue.
pub(crate) fn layers_on<Q: Queue>(queue: Q, tap: Arc<dyn Tap>) -> Result<Box<dyn LayerEngine>, Error> {
    let ops = GpuOps::new(queue, FloatType::F32).map_err(gpu_error)?;
    Ok(Box::new(On(ops.with_tap(tap))))
}

fn gpu_error(error: planish_gpu::Error) -> Error {
    Error::Device(Box::new(error))
}

/// Whether the error says that the machine has no such GPU.
pub(super) fn is_absence(error: &Error) -> bool {
    match error {
        Error::Device(error) => matches!(error.downcast_ref(), Some(planish_gpu::Error::NoDriver { .. })),
        _ => false,
    }
}
