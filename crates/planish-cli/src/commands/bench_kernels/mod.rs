//! `planish bench --kernels`: every GPU kernel on the shapes of well-known models, in µs, GB/s and TFLOP/s, beside the copy and read
//! speed of the device's memory measured in the same run.
//!
//! Buffers take turns so that no cache serves them. A time is the median over passes of many launches, divided by their number.

mod measure;
mod others;
mod products;
mod report;

use anyhow::Context;
use planish_format::{FloatType, Packing};
use planish_gpu::Queue;
use serde_json::{Value, json};

use self::measure::Bench;
use super::run_flags::{DeviceFlag, RunFlags};

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
pub struct KernelFlags {
    /// Bits of the weights, with --kernels [default: --bits, else 4 and 8]
    #[arg(long, value_name = "BITS,..", value_delimiter = ',', requires = "kernels")]
    widths: Vec<u32>,
    /// Shapes of the weights, with --kernels [default: products of 1B, 8B and 70B models]
    #[arg(long, value_name = "ROWSxCOLS,..", value_delimiter = ',', value_parser = shape, requires = "kernels")]
    shapes: Vec<(u32, u32)>,
    /// Rows of activations, with --kernels [default: 1, 2, 4, 8, 16, 32, 64, 512, 2048]
    #[arg(long, value_name = "N,..", value_delimiter = ',', requires = "kernels")]
    inputs: Vec<u32>,
    /// Only kernels whose name contains one of these, with --kernels
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', requires = "kernels")]
    only: Vec<String>,
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
    fn new(flags: &RunFlags, kernels: &KernelFlags) -> anyhow::Result<Choice> {
        let or = |given: &[u32], default: &[u32]| if given.is_empty() { default } else { given }.to_vec();
        let widths = match flags.bits {
            Some(bits) => or(&kernels.widths, &[bits]),
            None => or(&kernels.widths, &WIDTHS),
        };
        let packing = |bits: u32| {
            Packing::new(bits, flags.group_size.unwrap_or(GROUP))
                .context("bits are 2, 3, 4, 5, 6 or 8, a group is a multiple of 8")
        };
        anyhow::ensure!(!kernels.inputs.contains(&0), "--inputs 0: a product has at least one");
        Ok(Choice {
            packings: widths.into_iter().map(packing).collect::<anyhow::Result<_>>()?,
            shapes: match kernels.shapes.is_empty() {
                true => SHAPES.to_vec(),
                false => kernels.shapes.clone(),
            },
            inputs: or(&kernels.inputs, &INPUTS),
            only: kernels.only.clone(),
            value: if flags.exact { FloatType::F32 } else { FloatType::BF16 },
        })
    }

    fn takes(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part))
    }
}

/// Runs the command on the device that the flags name.
pub fn run(flags: &RunFlags, kernels: &KernelFlags, as_json: bool) -> anyhow::Result<()> {
    let choice = Choice::new(flags, kernels)?;
    let result = measure_on(flags.device, &choice)?;
    match as_json {
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
    anyhow::bail!("--kernels measures the kernels of GPUs, and {device:?} is none of this system")
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
