//! The library's model: load, cache, forward. Hides which device computes.

use planish_checkpoint::Checkpoint;
use planish_cpu::{Cpu, Precision};
use planish_ops::CpuOps;
use planish_quantize::Recipe;

use crate::decoder::{Decoder, Engine};
use crate::source::{CheckpointSource, Unpack, WeightSource};
use crate::{Architecture, Cache, Error, Phases};

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

/// How to load a model.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Where to compute.
    pub device: Device,
    /// Threads of the CPU; `None` is one per physical core.
    pub threads: Option<usize>,
    /// Compute in f32 throughout: no int8 activations, no 16-bit cache. For comparing with other implementations.
    pub exact: bool,
    /// Pack plain weights while loading, layer by layer.
    pub quantize: Option<Recipe>,
    /// Unpack packed weights while loading.
    pub dequantize: bool,
}

/// A model ready to run.
pub struct Model {
    architecture: Architecture,
    device: String,
    threads: usize,
    engine: Box<dyn Engine>,
}

impl Model {
    /// Loads every weight that the architecture needs. Packed weights, and plain ones that stay plain, are read in place
    /// from the mapped file.
    ///
    /// # Errors
    /// An architecture, RoPE type or activation that is not known; a missing tensor; a wrong shape; an absent device.
    pub fn load(checkpoint: &Checkpoint, options: &LoadOptions) -> Result<Model, Error> {
        let architecture = Architecture::from_config(checkpoint.config())?;
        let unpack = if options.exact {
            Unpack::Single
        } else {
            Unpack::ScaleType
        };
        let unpacking = (options.dequantize, unpack);
        let spellings = architecture.spellings.clone();
        let source = CheckpointSource::new(checkpoint, &spellings, options.quantize.as_ref(), unpacking)?;
        Model::build(architecture, &source, options)
    }

    pub(crate) fn build(
        architecture: Architecture,
        source: &dyn WeightSource,
        options: &LoadOptions,
    ) -> Result<Model, Error> {
        match options.device {
            Device::Auto | Device::Cpu => {}
            Device::Metal => return Err(Error::DeviceAbsent { device: "metal" }),
            Device::Cuda => return Err(Error::DeviceAbsent { device: "cuda" }),
        }
        let cpu = Cpu::new(options.threads.unwrap_or(0)).map_err(|error| Error::Device(Box::new(error)))?;
        let (threads, device) = (cpu.pool().threads(), format!("cpu ({})", cpu.instructions()));
        let precision = if options.exact {
            Precision::Exact
        } else {
            Precision::Int8
        };
        let decoder = Decoder::load(CpuOps::new(cpu, precision), &architecture, source)?;
        Ok(Model {
            architecture,
            device,
            threads,
            engine: Box::new(decoder),
        })
    }

    /// What the model is made of.
    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// The device and its instruction set, for reports.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// Threads of the CPU.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// An empty key-value cache for up to `capacity` positions; memory is taken as it fills.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn cache(&self, capacity: usize) -> Result<Cache, Error> {
        self.engine.cache(capacity)
    }

    /// Appends `tokens` to the cache and returns the logits after the last one. // (vocabulary)
    ///
    /// # Errors
    /// No token, a token outside of the vocabulary, a full cache: nothing has changed then. A lost device.
    ///
    /// # Panics
    /// If the cache belongs to a model of another architecture or device.
    pub fn forward(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<&[f32], Error> {
        self.engine.forward(tokens, cache)
    }

    /// Appends `tokens` to the cache and hands the logits after each of them to `each(index, logits)`.
    ///
    /// # Errors
    /// As [`Model::forward`].
    ///
    /// # Panics
    /// As [`Model::forward`].
    pub fn forward_all(
        &mut self,
        tokens: &[u32],
        cache: &mut Cache,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        self.engine.forward_all(tokens, cache, each)
    }

    /// Begins to measure where time goes, from zero, or stops.
    pub fn measure(&mut self, on: bool) {
        self.engine.measure(on);
    }

    /// Where time went since measuring began.
    pub fn phases(&self) -> Phases {
        self.engine.phases()
    }
}
