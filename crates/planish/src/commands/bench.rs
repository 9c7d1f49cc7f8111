//! `planish bench`: prefill and decode rates, load time, memory, and where the time goes.
//!
//! As llama-bench does it: prefill processes random tokens into an empty cache, decode feeds them one by one into an empty
//! cache (or one filled with `--depth` tokens). Rates are medians over `--repeat` runs after one unmeasured run.

use std::time::{Duration, Instant};

use anyhow::Context;
use planish_format::Packing;
use planish_generate::{Files, Tokenizer};
use planish_model::{Cache, LoadOptions, Model, Phases, SHAPES};
use serde_json::{Value, json};

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
    /// Measure the GPU's kernels one by one instead of a model
    #[arg(long, conflicts_with_all = ["model", "shape"])]
    kernels: bool,
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
    if arguments.kernels {
        return super::bench_kernels::run(&arguments.flags, arguments.json);
    }
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
    let prefill = measure(arguments.prompt_tokens, arguments.repeat, &mut model, |model| {
        prefill(model, &tokens[..arguments.prompt_tokens])
    })?;
    let decode = measure(arguments.generate_tokens, arguments.repeat, &mut model, |model| {
        decode(model, &tokens[..arguments.depth], &tokens[..arguments.generate_tokens])
    })?;
    let result = json!({
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
        "prefill_tokens_per_s": prefill.median(),
        "decode_tokens_per_s": decode.median(),
        "peak_memory_bytes": peak_memory_bytes(),
        "prefill": prefill.json(),
        "decode": decode.json(),
    });
    if arguments.json {
        println!("{result}");
    } else {
        print_table(&result);
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

fn prefill(model: &mut Model, tokens: &[u32]) -> anyhow::Result<Duration> {
    let mut cache = model.cache(tokens.len())?;
    let start = Instant::now();
    model.forward(tokens, &mut cache)?;
    Ok(start.elapsed())
}

fn decode(model: &mut Model, before: &[u32], tokens: &[u32]) -> anyhow::Result<Duration> {
    let mut cache: Cache = model.cache(before.len() + tokens.len())?;
    if !before.is_empty() {
        model.measure(false);
        model.forward(before, &mut cache)?;
        model.measure(true);
    }
    let start = Instant::now();
    for token in tokens {
        model.forward(std::slice::from_ref(token), &mut cache)?;
    }
    Ok(start.elapsed())
}

/// Runs of one kind.
struct Measured {
    rates: Vec<f64>,
    phases: Phases,
}

/// One run to warm up, the measured ones, and a last one that says where time goes.
fn measure(
    tokens: usize,
    repeat: usize,
    model: &mut Model,
    mut run: impl FnMut(&mut Model) -> anyhow::Result<Duration>,
) -> anyhow::Result<Measured> {
    if tokens == 0 {
        return Ok(Measured {
            rates: Vec::new(),
            phases: Phases::default(),
        });
    }
    run(model)?;
    model.measure(false);
    let mut rates = Vec::new();
    for _ in 0..repeat {
        let elapsed = run(model)?;
        model.measure(false);
        rates.push(tokens as f64 / elapsed.as_secs_f64());
    }
    model.measure(true);
    run(model)?;
    let phases = model.phases();
    model.measure(false);
    Ok(Measured { rates, phases })
}

impl Measured {
    /// Tokens per second.
    fn median(&self) -> Option<f64> {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        let middle = rates.len().checked_sub(1)? / 2;
        Some((rates[middle] + rates[rates.len() / 2]) / 2.0)
    }

    fn json(&self) -> Value {
        let Phases {
            matmul,
            attention,
            head,
            other,
        } = self.phases;
        let seconds = [
            ("matmul", matmul),
            ("attention", attention),
            ("head", head),
            ("other", other),
        ];
        let phases: serde_json::Map<_, _> = seconds
            .into_iter()
            .map(|(name, time)| (format!("{name}_s"), time.as_secs_f64().into()))
            .collect();
        json!({"runs_tokens_per_s": self.rates, "phases": phases})
    }
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

fn print_table(result: &Value) {
    let text = |key: &str| result[key].as_str().unwrap_or("").to_owned();
    let number = |key: &str| result[key].as_f64().unwrap_or(0.0);
    println!(
        "{} ({}) on {}, {} threads",
        result["model"].as_str().unwrap_or("the demo model"),
        text("architecture"),
        text("device"),
        result["threads"]
    );
    println!("load                 {:8.3} s", number("load_s"));
    println!("first token          {:8.3} s", number("time_to_first_token_s"));
    println!("peak memory          {:8.1} MB", number("peak_memory_bytes") / 1e6);
    for (kind, tokens) in [("prefill", "prompt_tokens"), ("decode", "generate_tokens")] {
        println!(
            "{kind:8} of {:5}    {:8.1} tokens/s",
            result[tokens],
            number(&format!("{kind}_tokens_per_s"))
        );
        let phases = &result[kind]["phases"];
        let share = |name: &str| phases[name].as_f64().unwrap_or(0.0);
        let parts = ["matmul_s", "attention_s", "head_s", "other_s"];
        let total: f64 = parts.iter().map(|part| share(part)).sum();
        if total > 0.0 {
            let parts =
                parts.map(|part| format!("{} {:.1} %", part.trim_end_matches("_s"), 100.0 * share(part) / total));
            println!("                     {}", parts.join(", "));
        }
    }
}
