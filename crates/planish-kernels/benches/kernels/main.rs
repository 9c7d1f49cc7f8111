//! Every GPU kernel on the shapes of well-known models, in µs, GB/s and TFLOP/s, beside the copy and read speed of the device's memory
//! measured in the same run: `cargo bench -p planish-kernels --bench kernels -- --shapes 4096x14336 --inputs 64 --only warpgroup`.
//!
//! Buffers take turns so that no cache serves them. A time is the median over passes of many launches, divided by their number.

mod measure;
mod others;
mod products;
mod report;

use anyhow::Context;
use clap::Parser;
use planish_format::{FloatType, Packing};
use planish_gpu::Queue;
use serde_json::{Value, json};

use self::measure::Bench;

/// What to measure, and on what.
#[derive(Parser, Clone, Debug)]
#[command(about = "Times every GPU kernel beside the speed of the device's memory")]
struct Flags {
    /// Bits of the weights
    #[arg(long, value_name = "BITS,..", value_delimiter = ',', default_values_t = WIDTHS)]
    widths: Vec<u32>,
    /// Shapes of the weights [default: products of 1B, 8B and 70B models]
    #[arg(long, value_name = "ROWSxCOLS,..", value_delimiter = ',', value_parser = shape)]
    shapes: Vec<(u32, u32)>,
    /// Rows of activations
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_values_t = INPUTS)]
    inputs: Vec<u32>,
    /// Only kernels whose name contains one of these
    #[arg(long, value_name = "NAME,..", value_delimiter = ',')]
    only: Vec<String>,
    /// Where to measure
    #[arg(long, value_enum, default_value = "auto")]
    device: DeviceFlag,
    /// Weights that share a scale and a bias
    #[arg(long, value_name = "SIZE", default_value_t = GROUP)]
    group_size: usize,
    /// Activations in f32
    #[arg(long)]
    exact: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Given by `cargo bench`
    #[arg(long, hide = true)]
    bench: bool,
}

/// A GPU.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
enum DeviceFlag {
    /// That of this system
    Auto,
    /// Apple GPUs
    Metal,
    /// NVIDIA GPUs
    Cuda,
}

/// (rows, cols): attention and feed-forward products of 1B, 8B and 70B models.
const SHAPES: [(u32, u32); 7] = [
    (2048, 2048),
    (8192, 2048),
    (2048, 8192),
    (4096, 4096),
    (14336, 4096),
    (4096, 14336),
    (28672, 8192),
];
const INPUTS: [u32; 9] = [1, 2, 4, 8, 16, 32, 64, 512, 2048];
const WIDTHS: [u32; 2] = [4, 8];
const GROUP: usize = 64;

/// Flags with their defaults filled in.
struct Choice {
    packings: Vec<Packing>,
    shapes: Vec<(u32, u32)>,
    inputs: Vec<u32>,
    only: Vec<String>,
    /// Type of activations.
    value: FloatType,
}

impl Choice {
    fn new(flags: &Flags) -> anyhow::Result<Choice> {
        let packing = |&bits: &u32| {
            Packing::new(bits, flags.group_size).context("bits are 2, 3, 4, 5, 6 or 8, a group is a multiple of 8")
        };
        anyhow::ensure!(!flags.inputs.contains(&0), "--inputs 0: a product has at least one");
        Ok(Choice {
            packings: flags.widths.iter().map(packing).collect::<anyhow::Result<_>>()?,
            shapes: match flags.shapes.is_empty() {
                true => SHAPES.to_vec(),
                false => flags.shapes.clone(),
            },
            inputs: flags.inputs.clone(),
            only: flags.only.clone(),
            value: if flags.exact { FloatType::F32 } else { FloatType::BF16 },
        })
    }

    fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }
}

fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    let result = measure_on(flags.device, &Choice::new(&flags)?)?;
    match flags.json {
        true => println!("{result}"),
        false => report::print_tables(&result),
    }
    Ok(())
}

fn measure_on(device: DeviceFlag, choice: &Choice) -> anyhow::Result<Value> {
    #[cfg(any(target_os = "linux", target_os = "windows"))]
    if matches!(device, DeviceFlag::Auto | DeviceFlag::Cuda) {
        return measure_all(planish_gpu::CudaQueue::new()?, choice);
    }
    #[cfg(target_vendor = "apple")]
    if matches!(device, DeviceFlag::Auto | DeviceFlag::Metal) {
        return measure_all(planish_gpu::MetalQueue::new()?, choice);
    }
    let _ = choice;
    anyhow::bail!("this system has no GPU for --device {device:?}")
}

fn measure_all<Q: Queue>(queue: Q, choice: &Choice) -> anyhow::Result<Value> {
    let bench = Bench::new(queue)?;
    Ok(json!({
        "device": bench.queue.device(),
        "values": format!("{:?}", choice.value),
        "copy_gb_per_s": bench.copy_gb_per_s,
        "read_gb_per_s": bench.read_gb_per_s,
        "products": products::measure(&bench, choice)?,
        "others": others::measure(&bench, choice)?,
    }))
}

fn shape(text: &str) -> Result<(u32, u32), String> {
    let sizes = text
        .split_once('x')
        .and_then(|(rows, cols)| rows.parse().ok().zip(cols.parse().ok()));
    sizes
        .filter(|&(rows, cols): &(u32, u32)| rows > 0 && cols > 0)
        .ok_or_else(|| "a shape is ROWSxCOLS, as 14336x4096".to_owned())
}
