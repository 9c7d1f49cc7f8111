//! `planish bench`: prefill and decode rates, load time, memory, and where the time goes.
//!
//! The measuring is the library's (`CausalLM::bench` and `profile`); rates are medians over `--repeat` runs.

mod batch;
mod report;
mod serve;

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::time::Instant;

use clap::builder::ArgPredicate;
use planish::{AutoModelForCausalLM, BenchOptions, CausalLM, LoadOptions, SHAPES};
use serde_json::json;

use super::answer::print_notice;
use super::packing_flags::packing;
use super::run_flags::RunFlags;

/// Flags of `planish bench`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name) [default: the small demo model inside planish]
    #[arg(value_name = "MODEL")]
    model: Option<OsString>,
    /// Random packed weights of this shape instead of a model (--bits and --group-size say how; 4 and 64 by default)
    #[arg(long, conflicts_with = "model", value_parser = SHAPES)]
    shape: Option<String>,
    /// Tokens of a prefill; with --batch, of each sequence's prompt, 128 unless told
    #[arg(
        short,
        long,
        value_name = "N",
        default_value_t = 512,
        default_value_if("batch", ArgPredicate::IsPresent, "128")
    )]
    prompt_tokens: usize,
    /// Tokens of a decode
    #[arg(short = 'n', long, value_name = "N", default_value_t = 128)]
    generate_tokens: usize,
    /// Tokens in the cache before a decode
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Measure so many sequences side by side instead, one after the other of these numbers (1,4,16,64)
    #[arg(long, value_name = "N,..", value_delimiter = ',', conflicts_with = "depth",
        value_parser = clap::value_parser!(u32).range(1..))]
    batch: Vec<u32>,
    /// Measured runs; with --serve, of each client
    #[arg(short, long, value_name = "N", default_value_t = 5)]
    repeat: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: serve::ServeFlags,
    #[command(flatten)]
    flags: RunFlags,
}

impl Arguments {
    /// What is measured, unless it is the demo model.
    fn name(&self) -> Option<Cow<'_, str>> {
        let model = self.model.as_deref().map(OsStr::to_string_lossy);
        model.or(self.shape.as_deref().map(Cow::Borrowed))
    }
}

/// Of the weights of a `--shape`, unless `--bits` says otherwise.
const SHAPE_BITS: u32 = 4;

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.repeat > 0, "--repeat 0: there must be at least one run");
    if !arguments.batch.is_empty() {
        return batch::run(arguments);
    }
    if let Some(url) = &arguments.server.serve {
        return serve::run(arguments, url);
    }
    let options = BenchOptions {
        prompt_tokens: arguments.prompt_tokens,
        generate_tokens: arguments.generate_tokens,
        depth: arguments.depth,
        repeat: arguments.repeat,
    };
    let start = Instant::now();
    let model = load(arguments)?;
    let load_s = start.elapsed().as_secs_f64();
    model.logits(&[0])?;
    let first_token_s = start.elapsed().as_secs_f64();
    let rates = model.bench(&options)?;
    let (peak_memory_bytes, device_memory) = (peak_memory_bytes(), model.device_memory());
    let profile = model.profile(&options)?;
    let mut result = json!({
        "model": arguments.name(),
        "architecture": model.architecture().name,
        "device": model.device(),
        "threads": model.threads(),
        "exact": arguments.flags.exact,
        "prompt_tokens": arguments.prompt_tokens,
        "generate_tokens": arguments.generate_tokens,
        "depth": arguments.depth,
        "repeat": arguments.repeat,
        "load_s": load_s,
        "time_to_first_token_s": first_token_s,
        "prefill_tokens_per_s": median(&rates.prefill),
        "decode_tokens_per_s": median(&rates.decode),
        "peak_memory_bytes": peak_memory_bytes,
        "device_memory_bytes": device_memory.map(|memory| json!({
            "weights": memory.weights,
            "workspace": memory.workspace,
            "sequences": memory.sequences,
        })),
        "prefill": {"runs_tokens_per_s": rates.prefill},
        "decode": {"runs_tokens_per_s": rates.decode},
    });
    if let Some(profile) = profile {
        report::add(&mut result, &profile);
    }
    if arguments.json {
        println!("{result}");
    } else {
        report::print(&result);
    }
    Ok(())
}

/// Opens the model with everything that generating a token needs, the tokenizer included.
fn load(arguments: &Arguments) -> anyhow::Result<CausalLM> {
    let flags = &arguments.flags;
    let Some(shape) = &arguments.shape else {
        return flags.load(arguments.model.as_deref());
    };
    let options = LoadOptions {
        quantize: None,
        ..flags.load_options()?
    };
    let packing = packing(flags.bits.unwrap_or(SHAPE_BITS), flags.group_size)?;
    let model = AutoModelForCausalLM::random(shape, packing).options(options).load()?;
    print_notice(&model);
    Ok(model)
}

/// `None` of nothing.
fn median(rates: &[f64]) -> Option<f64> {
    let mut rates = rates.to_vec();
    rates.sort_by(f64::total_cmp);
    let middle = rates.len().checked_sub(1)? / 2;
    Some((rates[middle] + rates[rates.len() / 2]) / 2.0)
}

/// The most memory that this process has had resident, mapped files included.
fn peak_memory_bytes() -> Option<u64> {
    // SAFETY: all-zero is a valid rusage, and getrusage fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &mut usage) == 0).then_some(usage)?
    };
    // Linux counts kilobytes, macOS bytes.
    let unit = if cfg!(target_vendor = "apple") { 1 } else { 1024 };
    Some(usage.ru_maxrss as u64 * unit)
}
