//! `planish bench --batch`: rates and memory of many sequences side by side.

use std::time::Instant;

use planish::{BatchBenchOptions, BatchRates, CausalLM};
use serde_json::{Value, json};

use super::{Arguments, load, median, peak_memory_bytes};

/// Runs the command.
pub(super) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    for (flag, tokens) in [
        ("prompt", arguments.prompt_tokens),
        ("generate", arguments.generate_tokens),
    ] {
        anyhow::ensure!(tokens > 0, "--{flag}-tokens 0: a batch needs at least one");
    }
    let start = Instant::now();
    let model = load(arguments)?;
    let load_s = start.elapsed().as_secs_f64();
    let mut rows = Vec::new();
    if !arguments.json {
        print_head(arguments, &model);
    }
    for &sequences in &arguments.batch {
        let rates = model.bench_batch(&BatchBenchOptions {
            sequences: sequences as usize,
            prompt_tokens: arguments.prompt_tokens,
            generate_tokens: arguments.generate_tokens,
            repeat: arguments.repeat,
        })?;
        let row = row(sequences, &rates);
        if !arguments.json {
            print_row(&row);
        }
        rows.push(row);
    }
    if arguments.json {
        let result = json!({
            "model": arguments.name(),
            "architecture": model.architecture().name,
            "device": model.device(),
            "threads": model.threads(),
            "exact": arguments.flags.exact,
            "prompt_tokens": arguments.prompt_tokens,
            "generate_tokens": arguments.generate_tokens,
            "repeat": arguments.repeat,
            "load_s": load_s,
            "batch": rows,
        });
        println!("{result}");
    }
    Ok(())
}

/// Medians of the runs with so many sequences, and memory.
fn row(sequences: u32, rates: &BatchRates) -> Value {
    let decode = median(&rates.decode);
    json!({
        "sequences": sequences,
        "decode_tokens_per_s": decode,
        "decode_tokens_per_s_of_each": decode.map(|rate| rate / f64::from(sequences)),
        "prefill_tokens_per_s": median(&rates.prefill),
        "mean_first_token_s": median(&rates.mean_first_token_s),
        "last_first_token_s": median(&rates.last_first_token_s),
        "peak_memory_bytes": peak_memory_bytes(),
        "memory_bytes_per_sequence": rates.sequence_bytes / sequences as usize,
        "device_memory_bytes": rates.device_memory.map(|memory| json!({
            "weights": memory.weights,
            "workspace": memory.workspace,
            "sequences": memory.sequences,
        })),
        "decode_runs_tokens_per_s": rates.decode,
    })
}

fn print_head(arguments: &Arguments, model: &CausalLM) {
    println!(
        "{} ({}) on {}, {} threads; {} tokens after a prompt of {}",
        arguments.name().unwrap_or("the demo model".into()),
        model.architecture().name,
        model.device(),
        model.threads(),
        arguments.generate_tokens,
        arguments.prompt_tokens,
    );
    println!("           decode, tokens/s     prefill,    first token, s          memory, MB");
    println!("sequences     all      each    tokens/s     mean      last       peak  a sequence");
}

fn print_row(row: &Value) {
    let number = |key: &str| row[key].as_f64().unwrap_or(0.0);
    println!(
        "{:9} {:7.1} {:9.1} {:11.1} {:8.3} {:9.3} {:10.1} {:11.2}",
        row["sequences"].as_u64().unwrap_or(0),
        number("decode_tokens_per_s"),
        number("decode_tokens_per_s_of_each"),
        number("prefill_tokens_per_s"),
        number("mean_first_token_s"),
        number("last_first_token_s"),
        number("peak_memory_bytes") / 1e6,
        number("memory_bytes_per_sequence") / 1e6,
    );
}
