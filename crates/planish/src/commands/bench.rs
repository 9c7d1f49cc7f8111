//! `planish bench`: prefill and decode rates, load time, memory, and where the time goes.
//!
//! As llama-bench does it: prefill processes random tokens into an empty cache, decode feeds them one by one into an empty
//! cache (or one filled with `--depth` tokens). Rates are medians over `--repeat` runs after one unmeasured run; one more run
//! says where time goes, on the CPU beside the limits of the machine, measured in the same minute (see planish-cpu's `limits.rs`).

mod report;
mod runs;

use std::time::Instant;

use anyhow::Context;
use planish_format::Packing;
use planish_generate::{Files, Tokenizer};
use planish_model::{LoadOptions, Model, SHAPES};
use serde_json::json;

use self::runs::{decode, median, prefill, profile};

use super::run_flags::RunFlags;
use super::source::open_or_demo;
use super::speaker::print_notice;

/// Flags of `planish bench`.
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A folder, a .gguf file, or a Hub id (org/name) [default: the small demo model inside planish]
    #[arg(value_name = "MODEL")]
    model: Option<String>,
    /// Random packed weights of this shape instead of a model (--bits and --group-size say how; 4 and 64 by default)
    #[arg(long, conflicts_with = "model", value_parser = SHAPES)]
    shape: Option<String>,
    /// Tokens of a prefill
    #[arg(long, value_name = "N", default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens of a decode
    #[arg(long, value_name = "N", default_value_t = 128)]
    generate_tokens: usize,
    /// Tokens in the cache before a decode
    #[arg(long, value_name = "N", default_value_t = 0)]
    depth: usize,
    /// Measured runs
    #[arg(long, value_name = "N", default_value_t = 5)]
    repeat: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    flags: RunFlags,
}

/// Runs the command.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    anyhow::ensure!(arguments.repeat > 0, "--repeat 0: there must be at least one run");
    let start = Instant::now();
    let mut model = load(arguments)?;
    let load_s = start.elapsed().as_secs_f64();
    print_notice(&model);
    let tokens = random_tokens(
        &model,
        arguments
            .prompt_tokens
            .max(arguments.generate_tokens)
            .max(arguments.depth)
            .max(1),
    );
    model.forward(&tokens[..1], &mut model.cache(1)?)?;
    let first_token_s = start.elapsed().as_secs_f64();
    let (prompt, generated) = (&tokens[..arguments.prompt_tokens], &tokens[..arguments.generate_tokens]);
    let before = &tokens[..arguments.depth];
    let prefill_rates = prefill(&mut model, prompt, arguments.repeat)?;
    let decode_rates = decode(&mut model, before, generated, arguments.repeat)?;
    let (peak_memory_bytes, device_memory) = (peak_memory_bytes(), model.device_memory());
    let profile = profile(&mut model, prompt, before, generated)?;
    let mut result = json!({
        "model": arguments.model.as_deref().or(arguments.shape.as_deref()),
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
        "prefill_tokens_per_s": median(&prefill_rates),
        "decode_tokens_per_s": median(&decode_rates),
        "peak_memory_bytes": peak_memory_bytes,
        "device_memory_bytes": device_memory.map(|memory| json!({
            "weights": memory.weights,
            "workspace": memory.workspace,
            "sequences": memory.sequences,
        })),
        "prefill": {"runs_tokens_per_s": prefill_rates},
        "decode": {"runs_tokens_per_s": decode_rates},
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
fn load(arguments: &Arguments) -> anyhow::Result<Model> {
    let flags = &arguments.flags;
    let options = flags.load_options()?;
    if let Some(shape) = &arguments.shape {
        let (bits, group) = (flags.bits.unwrap_or(4), flags.group_size.unwrap_or(64));
        let packing = Packing::new(bits, group).context("bits are 2, 3, 4, 5, 6 or 8, a group is a multiple of 8")?;
        return Ok(Model::random(
            shape,
            packing,
            &LoadOptions {
                quantize: None,
                ..options
            },
        )?);
    }
    let source = open_or_demo(arguments.model.as_deref(), flags.revision.as_deref())?;
    let model = Model::load(&source.checkpoint, &options)?;
    let files = Files::of(&source.checkpoint)?;
    if files.tokenizer.is_some() {
        Tokenizer::new(&files)?;
    }
    Ok(model)
}

/// Ids that are the same in every run (a linear congruence).
fn random_tokens(model: &Model, count: usize) -> Vec<u32> {
    let vocabulary = model.architecture().vocabulary as u64;
    let next = |state: &u64| {
        Some(
            state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407),
        )
    };
    std::iter::successors(Some(1u64), next)
        .map(|state| ((state >> 33) % vocabulary) as u32)
        .take(count)
        .collect()
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
