//! Flags shared by every command that runs a model: device, threads, quantizing while loading, precision.
#![allow(dead_code)] // until every command that takes them is there

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

/// Flags of commands that run a model.
#[derive(clap::Args, Clone, Debug)]
pub struct RunFlags {
    /// Where to compute
    #[arg(long, value_enum, default_value = "auto")]
    pub device: DeviceFlag,
    /// Threads of the CPU [default: one per core]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Quantize plain weights to this many bits while loading
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
    /// Branch, tag or commit of a Hub model
    #[arg(long, value_name = "REVISION")]
    pub revision: Option<String>,
}
