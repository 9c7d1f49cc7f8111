//! The build for fuzzing has no GPUs.

use super::{Job, Loaded, QuantizingDevice};
use crate::Error;
use crate::layers::LayerEngine;

impl Job<'_> {
    pub(super) fn on_cuda(&self) -> Result<Loaded, Error> {
        Err(Error::DeviceAbsent { device: "cuda" })
    }

    pub(super) fn on_metal(&self) -> Result<Loaded, Error> {
        Err(Error::DeviceAbsent { device: "metal" })
    }
}

pub(super) fn quantizing_cuda() -> Result<QuantizingDevice, Error> {
    Err(Error::DeviceAbsent { device: "cuda" })
}

pub(crate) fn layers_on_cuda(_: std::sync::Arc<dyn planish_ops::Tap>) -> Result<Box<dyn LayerEngine>, Error> {
    Err(Error::DeviceAbsent { device: "cuda" })
}

pub(super) fn is_absence(_: &Error) -> bool {
    false
}
