//! The demo model inside the program: greedy texts against transformers (tests/golden/demo.json), commands without MODEL,
//! and `planish demo`, without a network.
#![cfg(feature = "demo-model")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use planish::{AutoModelForCausalLM, AutoTokenizer, GenerationConfig};
use serde_json::Value;
use tempfile::TempDir;

const CRATE: &str = env!("CARGO_MANIFEST_DIR");

fn models() -> PathBuf {
    Path::new(CRATE).join("../../models")
}

fn golden() -> Value {
    let text = std::fs::read_to_string(Path::new(CRATE).join("tests/golden/demo.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Runs `planish` in an empty folder, with nothing on standard input.
fn planish(arguments: &[&str]) -> Output {
    let folder = TempDir::new().unwrap();
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("planish"));
    command
        .args(arguments)
        .current_dir(folder.path())
        .env("HF_HUB_OFFLINE", "1");
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        0,
        "something was left behind"
    );
    output
}

fn succeed(arguments: &[&str]) -> (String, String) {
    let output = planish(arguments);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{arguments:?}\n{stderr}");
    (stdout, stderr)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn greedy_texts_are_those_of_transformers() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    let mut compared = 0;
    for case in cases {
        let prompt = case["prompt"].as_str().unwrap();
        let limit = case["tokens"].as_array().unwrap().len().to_string();
        let flags = ["--exact", "--json", "--temperature", "0", "--max-new-tokens", &limit];
        let (stdout, _) = succeed(&[&["generate", "--prompt", prompt], &flags[..]].concat());
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!(found["tokens"], case["tokens"], "{prompt}");
        assert_eq!(found["text"], case["text"], "{prompt}");
        compared += case["tokens"].as_array().unwrap().len();
    }
    assert!(compared > 200, "only {compared} tokens are compared");
}

#[test]
fn the_story_is_whole_and_the_seed_fixes_it() {
    let arguments = ["generate", "--prompt", "Once upon a time", "--seed", "5"];
    let (story, notice) = succeed(&arguments);
    assert!(story.starts_with("Once upon a time, "), "{story}");
    assert!(story.ends_with(".\n") || story.ends_with("\"\n"), "{story}");
    assert!(story.split_whitespace().count() > 30, "{story}");
    assert!(notice.contains("No MODEL given"), "{notice}");
    assert_eq!(succeed(&arguments).0, story);
    let (json, _) = succeed(&[&arguments[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(format!("Once upon a time{}\n", json["text"].as_str().unwrap()), story);
    let (other, _) = succeed(&["generate", "--prompt", "Once upon a time", "--seed", "6"]);
    assert_ne!(other, story);
}

#[test]
fn the_library_has_it_too() {
    let case = &golden()["cases"][0];
    let tokenizer = AutoTokenizer::demo().unwrap();
    let prompt = tokenizer.encode(case["prompt"].as_str().unwrap()).unwrap();
    let config = GenerationConfig {
        max_new_tokens: case["tokens"].as_array().unwrap().len(),
        temperature: Some(0.0),
        ..GenerationConfig::default()
    };
    let model = AutoModelForCausalLM::demo().exact(true).load().unwrap();
    let found = model.generate(&prompt, &config).unwrap();
    assert_eq!(
        tokenizer.decode(&found[prompt.len()..]).unwrap(),
        case["text"].as_str().unwrap()
    );
}

#[test]
fn bench_and_evaluate_use_it() {
    let (stdout, _) = succeed(&[
        "bench",
        "--json",
        "--repeat",
        "1",
        "--prompt-tokens",
        "32",
        "--generate-tokens",
        "8",
    ]);
    let bench: Value = serde_json::from_str(&stdout).unwrap();
    assert!(bench["decode_tokens_per_s"].as_f64().unwrap() > 0.0);
    for limit in ["memory_bytes_per_s", "weights_bytes_per_s", "operations_per_s"] {
        assert!(bench["limits"][limit].as_f64().unwrap() > 0.0, "{limit}");
    }
    for phase in ["matmul", "attention", "head"] {
        assert!(bench["prefill"]["phases"][phase]["operations_per_s"].as_f64().unwrap() > 0.0);
        assert!(bench["decode"]["phases"][phase]["bytes_per_s"].as_f64().unwrap() > 0.0);
    }
    // Every token reads the same weights.
    let phases = &bench["decode"]["phases"];
    let bytes = phases["matmul"]["bytes"].as_u64().unwrap() + phases["head"]["bytes"].as_u64().unwrap();
    assert_eq!(bytes, 8 * bench["weight_bytes_per_token"].as_u64().unwrap());
    let held_out = models().join("demo/held-out.txt");
    let (stdout, _) = succeed(&[
        "evaluate",
        "--json",
        "--pieces",
        "2",
        "--text",
        held_out.to_str().unwrap(),
    ]);
    let evaluation: Value = serde_json::from_str(&stdout).unwrap();
    let perplexity = evaluation["perplexity"].as_f64().unwrap();
    assert!((1.0..3.0).contains(&perplexity), "{perplexity}");
}

#[test]
fn chat_continues_what_is_typed() {
    let flags = ["--temperature", "0", "--max-new-tokens", "20"];
    let mut child = Command::new(assert_cmd::cargo::cargo_bin!("planish"))
        .arg("chat")
        .args(flags)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let prompts = ["Once upon a time", "One day, Mia"];
    let input = prompts.join("\n") + "\n";
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let continued = |prompt: &str| {
        let (story, _) = succeed(&[&["generate", "--prompt", prompt], &flags[..]].concat());
        story.strip_prefix(prompt).unwrap().to_owned()
    };
    assert_eq!(text(&output.stdout), prompts.map(continued).concat());
}

#[test]
fn fewer_bits_cost_what_the_card_says() {
    let original = models().join("demo-float");
    let (stdout, _) = succeed(&["demo", "--json", "--original", original.to_str().unwrap()]);
    let demo: Value = serde_json::from_str(&stdout).unwrap();
    let versions = demo["versions"].as_array().unwrap();
    let column = |key: &str| -> Vec<f64> { versions.iter().filter_map(|version| version[key].as_f64()).collect() };
    assert_eq!(column("bits"), [8.0, 4.0, 2.0]);
    let (bytes, errors, perplexities) = (column("bytes"), column("relative_rms_error"), column("perplexity"));
    assert!(bytes.is_sorted_by(|left, right| left > right), "{bytes:?}");
    assert!(
        errors.len() == 3 && errors.is_sorted_by(|left, right| left < right),
        "{errors:?}"
    );
    assert!(errors[0] < 0.02 && errors[2] < 0.6, "{errors:?}");
    let [float, eight, four, two] = perplexities[..] else {
        panic!("{perplexities:?}")
    };
    // Eight bits and the original differ by less than rounding decides.
    assert!((eight / float - 1.0).abs() < 0.005, "{perplexities:?}");
    assert!(four > 0.995 * eight && four < 1.05 * float, "{perplexities:?}");
    assert!(two > 1.2 * four, "{perplexities:?}");
    for version in versions {
        let story = version["story"].as_str().unwrap();
        assert!(story.starts_with("Once upon a time") && story.len() > 100, "{story}");
    }
}

#[test]
fn the_guided_minute_needs_no_folder() {
    let (stdout, stderr) = succeed(&["demo", "--prompt", "One day, Mia"]);
    assert!(stderr.contains("dequantized instead"), "{stderr}");
    assert!(!stdout.contains('\x1b'), "colours outside of a terminal: {stdout}");
    assert!(!stdout.contains("models/demo-float"), "{stdout}");
    for name in ["float", "8 bits", "4 bits", "2 bits"] {
        let rows: Vec<&str> = stdout.lines().filter(|line| line.starts_with(name)).collect();
        assert_eq!(rows.len(), 1, "{name}: {stdout}");
        assert!(rows[0].contains('█') && rows[0].chars().count() <= 80, "{}", rows[0]);
        assert!(stdout.contains(&format!("-- {name} --\nOne day, Mia")), "{stdout}");
    }
}
