//! Whole runs of the program on tiny models in which something was changed at random: whatever the change, a result or one message,
//! exit code 0, 1 or 2, in little time and memory, and an output that is whole or absent.
//!
//! `PLANISH_ROUNDS` runs from `PLANISH_SEED` on. To run elsewhere: `PLANISH_PROGRAM`, and `PLANISH_GOLDEN` for planish-model/tests.
//! `PLANISH_KEEP` is a folder for the models that failed.

#![cfg(unix)]

#[allow(dead_code, reason = "the fuzz targets use the rest")]
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;
mod mutated;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mutate::Random;
use mutated::models::{Model, models};
use mutated::run::{Run, run};
use planish_checkpoint::Checkpoint;

/// Processor time of one run.
const MOST_SECONDS: f64 = 5.0;
/// Memory beyond the size of the files.
const MOST_BYTES: u64 = 1 << 30;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn any_folder_gives_a_result_or_a_message() {
    let rounds = number("PLANISH_ROUNDS", 300);
    let first = number("PLANISH_SEED", 1);
    let golden = std::env::var_os("PLANISH_GOLDEN").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../planish-model/tests"),
        PathBuf::from,
    );
    let models = models(&golden);
    let next = AtomicU64::new(0);
    let counts = Mutex::new(BTreeMap::<String, u64>::new());
    let failures = Mutex::new(Vec::new());
    let work = || {
        let scratch = tempfile::tempdir().unwrap();
        loop {
            let round = next.fetch_add(1, Ordering::Relaxed);
            if round >= rounds {
                break;
            }
            let mut random = Random::new(first + round);
            let mut model = models[random.below(models.len())].clone();
            model.change(&mut random);
            let (command, outcome) = one(scratch.path(), &model, &mut random);
            let (kind, failure) = match outcome {
                Ok(code) => (format!("{} exit {code}", command[0]), None),
                Err(what) => ("FAILED".to_owned(), Some(what)),
            };
            *counts.lock().unwrap().entry(kind).or_default() += 1;
            if let Some(what) = failure {
                let seed = first + round;
                failures
                    .lock()
                    .unwrap()
                    .push(format!("seed {seed}, {}, {command:?}: {what}", model.name));
                if let Some(kept) = std::env::var_os("PLANISH_KEEP") {
                    model.write(&Path::new(&kept).join(format!("{seed}")));
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (counts, failures) = (counts.into_inner().unwrap(), failures.into_inner().unwrap());
    println!("{rounds} runs: {counts:?}");
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
    // Changes that end every run at the first check, or that change nothing, would test little.
    let ended = |code: &str| {
        counts
            .iter()
            .filter(|(kind, _)| kind.ends_with(code))
            .map(|(_, count)| count)
            .sum::<u64>()
    };
    let least = rounds / 10;
    assert!(ended(" exit 0") >= least && ended(" exit 1") >= least, "{counts:?}");
}

/// Runs one command on the model. The exit code, or what is wrong with it.
fn one(scratch: &Path, model: &Model, random: &mut Random) -> (Vec<&'static str>, Result<i32, String>) {
    let folder = scratch.join("model");
    model.write(&folder);
    let command = command(model, random);
    let run = run(scratch, &command);
    let outcome = judge(scratch, model, &run);
    for left in left(scratch) {
        let path = scratch.join(left);
        std::fs::remove_dir_all(&path)
            .or_else(|_| std::fs::remove_file(&path))
            .unwrap();
    }
    (command, outcome)
}

/// Mostly one that can go well.
fn command(model: &Model, random: &mut Random) -> Vec<&'static str> {
    let path = model.path;
    let cpu = ["--device", "cpu", "--threads", "1"];
    let out = [path, "--out", "out"];
    let metal = ["--group-size", "8", "--bits", random.pick(&["2", "4", "8"])];
    let mlx = [
        "--format",
        "mlx",
        "--group-size",
        "32",
        "--bits",
        random.pick(&["2", "3", "8"]),
    ];
    let dtype = ["--dtype", random.pick(&["float16", "bfloat16", "float32"])];
    let to = ["--to", random.pick(&["mlx", "metal"])];
    let wide = model.name.starts_with("golden_mlx");
    match random.below(8) {
        0 => vec!["inspect", path],
        // Golden GGUF files have no tokenizer.
        1..5 if path == "model" => [&["generate", path, "--prompt", "a b c", "-n", "3"][..], &cpu].concat(),
        5 if wide => [&["convert"], &out[..], &["--to", "metal"]].concat(),
        5 | 6 if wide || model.name.ends_with("metal") => [&["dequantize"], &out[..], &dtype].concat(),
        1 | 2 | 5 => [&["quantize"], &out[..], &metal].concat(),
        3 | 6 => [&["quantize"], &out[..], &mlx].concat(),
        7 => vec!["convert", path, "--out", "out.gguf", "--to", "gguf"],
        _ => match random.below(3) {
            0 => [&["dequantize"], &out[..], &dtype].concat(),
            1 => [&["convert"], &out[..], &to].concat(),
            _ => [&["quantize"], &out[..], &metal].concat(),
        },
    }
}

/// Names in the folder.
fn left(scratch: &Path) -> Vec<String> {
    let names = std::fs::read_dir(scratch).unwrap();
    names
        .map(|item| item.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn judge(scratch: &Path, model: &Model, run: &Run) -> Result<i32, String> {
    let told = run.stderr.lines().rev().take(8).collect::<Vec<_>>().join("\n");
    let code = match run.code {
        Some(code @ 0..=2) => code,
        other => return Err(format!("exit {other:?}: {told}")),
    };
    if run.stderr.contains("mistake") || run.stderr.contains("panicked") {
        return Err(format!("it blames itself: {told}"));
    }
    if code == 1 && run.stderr.lines().filter(|line| line.starts_with("error: ")).count() != 1 {
        return Err(format!("not one message: {told}"));
    }
    if run.seconds > MOST_SECONDS {
        return Err(format!("{} s: {told}", run.seconds));
    }
    let most = MOST_BYTES + model.bytes();
    if run.bytes > most {
        return Err(format!("{} MiB of memory: {told}", run.bytes >> 20));
    }
    let mut found = left(scratch);
    found.sort();
    match (code, &found.iter().map(String::as_str).collect::<Vec<_>>()[..]) {
        (_, ["model"]) => Ok(code),
        (0, ["model", out @ ("out" | "out.gguf")]) => match Checkpoint::open(&scratch.join(out)) {
            Ok(_) => Ok(0),
            Err(error) => Err(format!("the output cannot be opened: {error}")),
        },
        (_, found) => Err(format!("exit {code} leaves {found:?}")),
    }
}
