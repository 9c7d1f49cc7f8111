//! What `planish bench` prints: one JSON object, or the same as text.

use std::time::Duration;

use planish::{Limits, Phases, Profile, Spent};
use serde_json::{Map, Value, json};

/// Adds where time goes and the limits of the machine to a result.
pub(super) fn add(result: &mut Value, profile: &Profile) {
    let Limits {
        memory,
        weights,
        operations,
    } = profile.limits;
    result["limits"] = json!({
        "memory_bytes_per_s": memory,
        "weights_bytes_per_s": weights,
        "operations_per_s": operations,
    });
    result["weight_bytes_per_token"] = profile.token_bytes.into();
    let bytes_per_s = result["decode_tokens_per_s"]
        .as_f64()
        .map(|rate| rate * profile.token_bytes as f64);
    result["decode"]["weight_bytes_per_s"] = bytes_per_s.into();
    result["decode"]["share_of_read_limit"] = bytes_per_s.map(|rate| rate / weights).into();
    result["prefill"]["phases"] = phases(&profile.prefill, &profile.limits);
    result["decode"]["phases"] = phases(&profile.decode, &profile.limits);
}

fn phases(phases: &Phases, limits: &Limits) -> Value {
    let Phases {
        matmul,
        attention,
        head,
        other,
        choice,
    } = phases;
    let parts = [
        ("matmul", *matmul),
        ("attention", *attention),
        ("head", *head),
        ("sampling", *choice),
        ("other", *other),
    ];
    // A prefill chooses nothing.
    let known = parts.into_iter().filter(|(_, spent)| !spent.time.is_zero());
    let whole = known.clone().map(|(_, spent)| spent.time).sum::<Duration>();
    known
        .map(|(name, spent)| (name.to_owned(), phase(spent, whole, limits)))
        .collect::<Map<_, _>>()
        .into()
}

fn phase(Spent { time, work }: Spent, whole: Duration, limits: &Limits) -> Value {
    let seconds = time.as_secs_f64();
    let share = seconds / whole.as_secs_f64().max(f64::MIN_POSITIVE);
    let mut phase = json!({"time_s": seconds, "share_of_time": share});
    if work.bytes > 0 && seconds > 0.0 {
        let (bytes_per_s, operations_per_s) = (work.bytes as f64 / seconds, work.operations as f64 / seconds);
        phase["bytes"] = work.bytes.into();
        phase["bytes_per_s"] = bytes_per_s.into();
        phase["share_of_read_limit"] = (bytes_per_s / limits.weights).into();
        phase["operations"] = work.operations.into();
        phase["operations_per_s"] = operations_per_s.into();
        phase["share_of_operation_limit"] = (operations_per_s / limits.operations).into();
    }
    phase
}

/// Prints a result as text.
pub(super) fn print(result: &Value) {
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
    if let Some(memory) = result["device_memory_bytes"].as_object() {
        let megabytes = |key: &str| memory[key].as_f64().unwrap_or(0.0) / 1e6;
        println!(
            "device memory        {:8.1} MB of weights, {:.1} MB between operations, {:.1} MB of sequences",
            megabytes("weights"),
            megabytes("workspace"),
            megabytes("sequences")
        );
    }
    for (kind, tokens) in [("prefill", "prompt_tokens"), ("decode", "generate_tokens")] {
        println!(
            "{kind:8} of {:5}    {:8.1} tokens/s",
            result[tokens],
            number(&format!("{kind}_tokens_per_s"))
        );
        for (name, phase) in result[kind]["phases"].as_object().into_iter().flatten() {
            println!("{}", phase_line(name, phase, kind == "prefill"));
        }
    }
    if let Some(limits) = result["limits"].as_object() {
        print_limits(limits, number("weight_bytes_per_token"));
    }
}

/// Reading is what limits a decode, arithmetic a prefill.
fn phase_line(name: &str, phase: &Value, arithmetic: bool) -> String {
    let number = |key: &str| phase[key].as_f64().unwrap_or(0.0);
    let percent = |key: &str| 100.0 * number(key);
    let mut line = format!(
        "  {name:10} {:8.1} ms {:4.0} %",
        1e3 * number("time_s"),
        percent("share_of_time")
    );
    if phase.get("bytes").is_some() {
        line += &format!("  {:7.1} GB/s", number("bytes_per_s") / 1e9);
        line += &match arithmetic {
            false => format!(" ({:.0} % of the limit)", percent("share_of_read_limit")),
            true => format!(
                "  {:7.0} Gop/s ({:.0} % of the limit)",
                number("operations_per_s") / 1e9,
                percent("share_of_operation_limit")
            ),
        };
    }
    line
}

fn print_limits(limits: &Map<String, Value>, token_bytes: f64) {
    let number = |key: &str| limits[key].as_f64().unwrap_or(0.0) / 1e9;
    println!("limits of all threads, measured now");
    println!(
        "  reading {:.0} MB, a token's weights  {:7.1} GB/s",
        token_bytes / 1e6,
        number("weights_bytes_per_s")
    );
    println!(
        "  reading memory                {:7.1} GB/s",
        number("memory_bytes_per_s")
    );
    println!(
        "  fastest dot product           {:7.0} Gop/s",
        number("operations_per_s")
    );
}
