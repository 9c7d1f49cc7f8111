//! `planish sweep` and `planish evaluate --tasks` on the command line.
#![cfg(feature = "demo-model")]

mod support;

use serde_json::Value;
use support::{Scratch, read_json};

const DEMO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo");

/// The story model, plain, and a short text.
fn scratch() -> Scratch {
    let scratch = Scratch::new();
    scratch.succeed(&["dequantize", DEMO, "--out", "source"]);
    let text = std::fs::read_to_string(format!("{DEMO}/held-out.txt")).unwrap();
    std::fs::write(scratch.path("text"), &text[..2000]).unwrap();
    scratch
}

fn sweep<'a>(flags: &[&'a str]) -> Vec<&'a str> {
    let common = [
        "sweep",
        "source",
        "--out",
        "out",
        "--text",
        "text",
        "--context",
        "32",
        "--pieces",
        "2",
    ];
    let spared = [
        "--override",
        r"layers\.[^7]|self_attn|gate_proj|up_proj=none",
        "--exclude",
        "model.embed_tokens",
    ];
    common.into_iter().chain(spared).chain(flags.iter().copied()).collect()
}

#[test]
fn rows_are_made_once_and_drawn() {
    let scratch = scratch();
    scratch.succeed(&sweep(&[
        "--bits",
        "2",
        "--methods",
        "mlx,search",
        "--recipes",
        "mixed_3_6",
        "--budgets",
        "2.5",
    ]));
    let rows = |scratch: &Scratch| -> Vec<Value> {
        read_json(&scratch.path("out/results.json"))["rows"]
            .as_array()
            .unwrap()
            .clone()
    };
    let first = rows(&scratch);
    let names: Vec<String> = first
        .iter()
        .map(|row| {
            format!(
                "{}: {}",
                row["curve"].as_str().unwrap(),
                row["setting"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        names,
        [
            "mlx: 2 bits",
            "search: 2 bits",
            "search, budget: budget 2.5",
            "search, mixes: mixed_3_6"
        ]
    );
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap();
    assert!(
        first
            .iter()
            .all(|row| number(row, "mean_kl_divergence") > 0.0 && number(row, "perplexity") > 1.0)
    );
    // One matrix is packed: in the last layer the mix gives it 6 bits. The budget is that of 2 bits, with scales and biases.
    let bits: Vec<f64> = first.iter().map(|row| number(row, "packed_bits")).collect();
    assert_eq!(bits, [2.5, 2.5, 2.5, 6.5]);
    assert!(number(&first[3], "mean_kl_divergence") < number(&first[1], "mean_kl_divergence"));
    assert_eq!(
        first[1]["mean_kl_divergence"], first[2]["mean_kl_divergence"],
        "the same codes"
    );
    let chart = std::fs::read_to_string(scratch.path("out/chart.svg")).unwrap();
    assert!(
        chart.starts_with("<svg") && chart.matches("<polyline").count() == 4,
        "{chart}"
    );
    assert!(!scratch.path("out/models").exists(), "models are not kept");

    // Another width: the rows that are there stay to the byte.
    let told = scratch.succeed(&sweep(&["--bits", "2,4", "--methods", "search", "--keep"]));
    assert!(
        told.contains("search, 2 bits: already there") && told.contains("1 of 1: search, 4 bits"),
        "{told}"
    );
    let second = rows(&scratch);
    assert!(second[..4] == first[..] && second.len() == 5);
    assert!(scratch.path("out/models/search-4-bits/config.json").exists());

    let before = std::fs::read(scratch.path("out/results.json")).unwrap();
    let mut other = sweep(&["--bits", "2"]);
    other.extend(["--group-size", "32"]);
    let message = scratch.fail(&other);
    assert!(message.contains("the group is \"32\" now"), "{message}");
    let message = scratch.fail(&sweep(&["--recipes", "mixed_9_9"]));
    assert!(message.contains("expected one of mixed_2_6"), "{message}");
    let message = scratch.fail(&sweep(&["--format", "metal", "--budgets", "3"]));
    assert!(message.contains("use --format mlx"), "{message}");
    assert_eq!(std::fs::read(scratch.path("out/results.json")).unwrap(), before);
}

#[test]
fn questions_are_answered_side_by_side() {
    let scratch = scratch();
    let tasks = std::fs::read_to_string(format!("{DEMO}/tasks.jsonl")).unwrap();
    let few: Vec<&str> = tasks.lines().take(6).collect();
    std::fs::write(scratch.path("tasks"), few.join("\n")).unwrap();
    let common = [
        "evaluate",
        DEMO,
        "source",
        "--tasks",
        "tasks",
        "--reference",
        "source",
        "--exact",
    ];
    let output = scratch.run(&common);
    assert!(output.status.success(), "{output:?}");
    let told = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = told.lines().collect();
    assert!(lines[0].starts_with("6 questions") && lines.len() == 4, "{told}");
    let output = scratch.run(&[&common[..], &["--json"]].concat());
    let rows: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 3);
    assert!(rows[0]["is_reference"] == true && rows[0]["same_choice_as_reference"].is_null());
    // The reference itself, and the same weights packed.
    assert_eq!(
        (&rows[2]["same_choice_as_reference"], &rows[2]["accuracy"]),
        (&1.0.into(), &rows[0]["accuracy"])
    );
    assert_eq!(rows[2]["log_likelihoods"], rows[0]["log_likelihoods"]);
    assert!(
        rows.iter()
            .all(|row| row["questions"] == 6 && row["log_likelihoods"].as_array().unwrap().len() == 6)
    );
    let message = scratch.fail(&["evaluate", DEMO, "--tasks", "text"]);
    assert!(message.contains("text: line 1: it is not JSON"), "{message}");
}
