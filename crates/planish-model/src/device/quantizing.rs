//! Which device chooses codes for files.

use std::sync::Arc;

use planish_format::{FloatMatrix, FloatType, Packing, Searcher};
use planish_quantize::Calibrator;

use super::{Device, gpu, is_absence};
use crate::Error;

/// Weights of a trial, by which a device shows that it compiles and runs kernels.
const TRIAL_WEIGHTS: usize = 64;

/// What chooses codes.
#[derive(Debug)]
pub struct QuantizingDevice {
    /// Where: [`Device::Cuda`] or [`Device::Cpu`].
    pub device: Device,
    /// For reports.
    pub name: String,
    /// Searches in place of the processor.
    pub searcher: Option<Arc<dyn Searcher>>,
    /// Adds up and chooses codes by inputs in place of the processor.
    pub calibrator: Option<Arc<dyn Calibrator>>,
    /// Why not the GPU that is there.
    pub notice: Option<Error>,
}

impl QuantizingDevice {
    /// The device that was asked for; [`Device::Auto`] takes an NVIDIA GPU where there is one that works.
    ///
    /// # Errors
    /// A device that is absent or does not work; one that does not quantize.
    pub fn open(device: Device) -> Result<QuantizingDevice, Error> {
        match device {
            Device::Cpu => Ok(QuantizingDevice::processor(None)),
            Device::Metal => Err(Error::NoQuantizing { device: "metal" }),
            Device::Cuda => tried(),
            Device::Auto => match tried() {
                Ok(device) => Ok(device),
                Err(error) if is_absence(&error) => Ok(QuantizingDevice::processor(None)),
                Err(error) => Ok(QuantizingDevice::processor(Some(error))),
            },
        }
    }

    /// The GPU behind `queue`.
    ///
    /// # Errors
    /// The device is out of memory.
    #[cfg(not(fuzzing))]
    pub fn on<Q: planish_gpu::Queue>(queue: Q) -> Result<QuantizingDevice, Error> {
        gpu::on_quantizing_queue("gpu", Ok(queue))
    }

    fn processor(notice: Option<Error>) -> QuantizingDevice {
        QuantizingDevice {
            device: Device::Cpu,
            name: "cpu".to_owned(),
            searcher: None,
            calibrator: None,
            notice,
        }
    }
}

/// A GPU that has packed something.
fn tried() -> Result<QuantizingDevice, Error> {
    let device = gpu::quantizing_cuda()?;
    let values = [0; 4 * TRIAL_WEIGHTS];
    let matrix = FloatMatrix::new(1, TRIAL_WEIGHTS, FloatType::F32, &values);
    if let (Some(searcher), Ok(matrix), Some(packing)) = (&device.searcher, matrix, Packing::new(4, TRIAL_WEIGHTS)) {
        let found = searcher.search(matrix, packing, FloatType::BF16, None);
        found.map_err(Error::Device)?;
    }
    Ok(device)
}
