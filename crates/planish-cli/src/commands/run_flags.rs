//! Flags shared by every command that runs a model: device, threads, quantizing while loading, precision.

use std::ffi::OsStr;
use std::path::PathBuf;

use planish::{AutoModelForCausalLM, CacheType, CausalLM, Device, LoadOptions, Recipe, Source};

use super::answer::print_notice;
use super::packing_flags::{overrides, packing};
use super::source::open_or_demo;

/// Where to compute.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceFlag {
    /// The best device there is that the model fits
    Auto,
    /// Apple GPUs
    Metal,
    /// NVIDIA GPUs
    Cuda,
    /// Processor cores
    Cpu,
}

impl DeviceFlag {
    /// The device.
    pub fn device(self) -> Device {
        match self {
            DeviceFlag::Auto => Device::Auto,
            DeviceFlag::Metal => Device::Metal,
            DeviceFlag::Cuda => Device::Cuda,
            DeviceFlag::Cpu => Device::Cpu,
        }
    }
}

/// How keys and values are stored.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheFlag {
    /// 4 bytes a value
    Float32,
    /// 2 bytes a value
    Float16,
    /// 1 byte a value and a scale for each head of a position
    Int8,
}

/// Flags of commands that run a model.
#[derive(clap::Args, Clone, Debug)]
pub struct RunFlags {
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    pub device: DeviceFlag,
    /// Threads of the CPU [default: one per physical core]
    #[arg(short, long, value_name = "N")]
    pub threads: Option<usize>,
    /// Quantize plain weights to 2, 3, 4, 5, 6 or 8 bits while loading [default: not]
    #[arg(long, value_name = "BITS")]
    pub bits: Option<u32>,
    /// Weights that share a scale and a bias, with --bits [default: 64]
    #[arg(long, value_name = "SIZE", requires = "bits")]
    pub group_size: Option<usize>,
    /// Leave this module plain, with --bits (repeatable)
    #[arg(long, value_name = "NAME", requires = "bits")]
    pub exclude: Vec<String>,
    /// Other bits for modules that match, with --bits (repeatable)
    #[arg(long = "override", value_name = "REGEX=BITS[,GROUP]|none", requires = "bits")]
    pub overrides: Vec<String>,
    /// Unpack packed weights to plain ones while loading
    #[arg(long, conflicts_with = "bits")]
    pub dequantize: bool,
    /// Compute in f32 throughout, for comparing with other implementations
    #[arg(long)]
    pub exact: bool,
    /// How keys and values are stored, on the CPU [default: float16, with --exact float32]
    #[arg(long, value_enum, value_name = "TYPE")]
    pub cache: Option<CacheFlag>,
    /// A folder of an adapter of PEFT (LoRA, DoRA) or mlx-lm: beside packed weights, merged into plain ones while loading
    #[arg(long, value_name = "DIR")]
    pub adapter: Option<PathBuf>,
    /// Branch, tag or commit of a Hub model
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
}

impl RunFlags {
    /// How to load the model that these flags ask for.
    pub fn load_options(&self) -> anyhow::Result<LoadOptions> {
        anyhow::ensure!(
            self.threads != Some(0),
            "--threads 0: there must be at least one thread"
        );
        let quantize = self.recipe()?;
        Ok(LoadOptions {
            device: self.device.device(),
            threads: self.threads,
            exact: self.exact,
            cache: self.cache.map(|cache| match cache {
                CacheFlag::Float32 => CacheType::Float32,
                CacheFlag::Float16 => CacheType::Float16,
                CacheFlag::Int8 => CacheType::Int8,
            }),
            quantize,
            dequantize: self.dequantize,
            ..LoadOptions::default()
        })
    }

    fn recipe(&self) -> anyhow::Result<Option<Recipe>> {
        let Some(bits) = self.bits else { return Ok(None) };
        let packing = packing(bits, self.group_size)?;
        let overrides = overrides(&self.overrides, packing)?;
        Ok(Some(Recipe::for_loading(packing, self.exclude.clone(), overrides)?))
    }

    /// Opens and loads MODEL, or the demo model.
    pub fn load(&self, model: Option<&OsStr>) -> anyhow::Result<CausalLM> {
        // Bad flags are told before anything is fetched.
        let options = self.load_options()?;
        let source = self.open(model)?;
        load(&source, options)
    }

    /// Opens MODEL, or the demo model, with the adapter.
    pub fn open(&self, model: Option<&OsStr>) -> anyhow::Result<Source> {
        let source = open_or_demo(model, self.revision.as_deref())?;
        Ok(match &self.adapter {
            Some(adapter) => source.adapted(adapter)?,
            None => source,
        })
    }
}

/// Loads an opened model, and says if it is not where one would expect it.
pub fn load(source: &Source, options: LoadOptions) -> anyhow::Result<CausalLM> {
    load_with(source, options, None)
}

/// The same with another chat template.
pub fn load_with(source: &Source, options: LoadOptions, template: Option<String>) -> anyhow::Result<CausalLM> {
    let mut builder = AutoModelForCausalLM::from_source(source).options(options);
    if let Some(template) = template {
        builder = builder.chat_template(template);
    }
    let model = builder.load()?;
    print_notice(&model);
    Ok(model)
}
