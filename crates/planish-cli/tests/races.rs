//! Eight runs at once to one target, some of them stopped by a signal: the target is whole or absent, and nothing else is left.
//! `PLANISH_ROUNDS` rounds.

#![cfg(unix)]

mod support;

use std::collections::HashMap;
use std::process::{Child, Stdio};
use std::time::Duration;

use planish_format::FloatType;
use serde_json::json;
use support::{Scratch, plain};

const RUNS: usize = 8;
const BITS: [&str; 3] = ["2", "4", "8"];

fn command<'a>(bits: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&["quantize", "source", "--out", "out", "--bits", bits][..], more].concat()
}

fn weights(scratch: &Scratch) -> Vec<u8> {
    std::fs::read(scratch.path("out/model.safetensors")).unwrap()
}

fn signal(child: &Child, name: &str) {
    let kill = format!("kill -{name} {} 2>/dev/null", child.id());
    // It may have ended before.
    let _ = std::process::Command::new("sh").args(["-c", &kill]).status().unwrap();
}

#[test]
fn eight_runs_to_one_target() {
    let rounds: usize = std::env::var("PLANISH_ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    let scratch = Scratch::new();
    let mut seed = 5;
    let tensor = |layer| {
        plain(
            &format!("model.layers.{layer}.mlp.down_proj.weight"),
            &[256, 512],
            &mut seed,
        )
    };
    let tensors: Vec<_> = (0..6).map(tensor).collect();
    scratch.write("source", &json!({"model_type": "llama"}), FloatType::F32, &tensors);
    let mut expected = HashMap::new();
    for bits in BITS {
        scratch.succeed(&command(bits, &[]));
        expected.insert(weights(&scratch), bits);
        std::fs::remove_dir_all(scratch.path("out")).unwrap();
    }
    let mut ends = HashMap::<i32, usize>::new();
    for round in 0..rounds {
        // What was there before is replaced, or a loser's to find.
        if round % 3 == 0 {
            let _ = std::fs::remove_dir_all(scratch.path("out"));
        }
        let was_there = scratch.path("out").exists();
        let start = |run: usize| {
            let force: &[&str] = if (run + round).is_multiple_of(2) {
                &["--force"]
            } else {
                &[]
            };
            let mut command = scratch.command(&command(BITS[(run + round) % 3], force));
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let children: Vec<Child> = (0..RUNS).map(start).collect();
        if round % 2 == 1 {
            for (run, child) in children.iter().enumerate().step_by(3) {
                std::thread::sleep(Duration::from_micros((round * 7919 + run * 4001) as u64 % 20_000));
                signal(child, if run % 2 == 0 { "TERM" } else { "INT" });
            }
        }
        let mut won = 0;
        for child in children {
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            // Without a code where the signal came before anything ran.
            let code = output.status.code().unwrap_or(-1);
            assert!(
                [0, 1, 130, 143, -1].contains(&code),
                "round {round}: exit {code}\n{stderr}"
            );
            if code == 1 {
                let messages = stderr.lines().filter(|line| line.starts_with("error: out: ")).count();
                assert!(messages == 1 && !stderr.contains("mistake"), "round {round}: {stderr}");
            }
            won += usize::from(code == 0);
            *ends.entry(code).or_default() += 1;
        }
        let names = scratch.names();
        match scratch.path("out").exists() {
            true => {
                assert_eq!(names, ["out", "source"], "round {round}");
                assert!(
                    expected.contains_key(&weights(&scratch)),
                    "round {round}: not the bytes of one run"
                );
                scratch.open("out");
            }
            false => {
                assert_eq!(names, ["source"], "round {round}");
                assert!(won == 0 && !was_there, "round {round}: the target is gone");
            }
        }
    }
    println!("{rounds} rounds of {RUNS} runs: exit codes {ends:?}");
    assert!(ends.contains_key(&0) && ends.contains_key(&1), "{ends:?}");
}
