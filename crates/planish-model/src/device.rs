//! Which device computes: opens it, checks that the model fits, loads the decoder there. `auto` takes a GPU where there is one
//! that the model fits, and says why not where it takes the processor instead.

#[cfg(not(fuzzing))]
mod calibrating;
#[cfg(not(fuzzing))]
mod gpu;
#[cfg(fuzzing)]
#[path = "device/no_gpu.rs"]
mod gpu;

mod quantizing;

use std::sync::Arc;

/// Choosing by logits that were read, whatever device they come from.
pub use planish_cpu::{Candidate, Chooser, drawn};
use planish_cpu::{Cpu, CpuOps, Precision};

use crate::decoder::{Decoder, Engine};
use crate::source::WeightSource;
use crate::{Architecture, Error, LoadOptions};

#[cfg(not(fuzzing))]
pub(crate) use gpu::layers_on;
pub(crate) use gpu::layers_on_cuda;
pub use quantizing::QuantizingDevice;

/// Where to compute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The best device there is that the model fits.
    #[default]
    Auto,
    /// Apple GPUs.
    Metal,
    /// NVIDIA GPUs.
    Cuda,
    /// Processor cores.
    Cpu,
}

impl Device {
    /// The best device there is that the model fits.
    pub fn auto() -> Device {
        Device::Auto
    }
}

/// Threads that may be asked for where the machine has fewer cores.
const MOST_THREADS: usize = 1024;

/// A decoder on its device.
pub(crate) struct Loaded {
    pub(crate) engine: Box<dyn Engine>,
    /// For reports.
    pub(crate) device: String,
    pub(crate) threads: usize,
    /// Why not the GPU that is there.
    pub(crate) notice: Option<Error>,
}

/// What is loaded.
pub(crate) struct Job<'a> {
    pub(crate) architecture: &'a Architecture,
    pub(crate) source: &'a dyn WeightSource,
    pub(crate) options: &'a LoadOptions,
}

impl Job<'_> {
    pub(crate) fn load(&self) -> Result<Loaded, Error> {
        match self.options.device {
            _ if self.options.tap.is_some() => self.on_cpu(None),
            Device::Cpu => self.on_cpu(None),
            Device::Cuda => self.on_cuda(),
            Device::Metal => self.on_metal(),
            Device::Auto => self.on_best(),
        }
    }

    fn on_best(&self) -> Result<Loaded, Error> {
        let attempt = if cfg!(target_vendor = "apple") {
            self.on_metal()
        } else {
            self.on_cuda()
        };
        match attempt {
            Ok(loaded) => Ok(loaded),
            Err(error) if is_absence(&error) => self.on_cpu(None),
            // A broken checkpoint is broken on the processor too: the same error comes again.
            Err(error) => self.on_cpu(Some(error)),
        }
    }

    fn on_cpu(&self, notice: Option<Error>) -> Result<Loaded, Error> {
        let threads = self.options.threads.unwrap_or(0);
        let most = std::thread::available_parallelism()
            .map_or(0, usize::from)
            .max(MOST_THREADS);
        if threads > most {
            return Err(Error::Threads { found: threads, most });
        }
        let cpu = Cpu::new(threads).map_err(|error| Error::Device(Box::new(error)))?;
        let cpu = match &self.options.tap {
            Some(tap) => cpu.with_tap(Arc::clone(tap)),
            None => cpu,
        };
        let (threads, device) = (cpu.pool().threads(), format!("cpu ({})", cpu.instructions()));
        let precision = match self.options.exact {
            true => Precision::Exact,
            false => Precision::Rounded,
        };
        let mut ops = CpuOps::new(cpu, precision);
        if let Some(cache) = self.options.cache {
            ops = ops.with_cache(cache);
        }
        if self.options.in_place {
            ops = ops.in_place();
        }
        let decoder = Decoder::load(ops, self.architecture, self.source)?;
        Ok(Loaded {
            engine: Box::new(decoder),
            device,
            threads,
            notice,
        })
    }
}

/// Whether there is no such device, so that nobody expects it to be used.
fn is_absence(error: &Error) -> bool {
    matches!(error, Error::DeviceAbsent { .. }) || gpu::is_absence(error)
}
