//! Names of flags that people know from llama.cpp and mlx-lm, and what `--help` says of defaults.
#![cfg(feature = "demo-model")]

use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn planish(arguments: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("planish"))
        .args(arguments)
        .stdin(Stdio::null())
        .env("HF_HUB_OFFLINE", "1")
        .output()
        .unwrap()
}

fn json(arguments: &[&str]) -> Value {
    let output = planish(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn help(command: &str) -> String {
    let output = planish(&[command, "--help"]);
    let text = String::from_utf8(output.stdout).unwrap();
    // Lines are broken to the terminal's width.
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn short_names_mean_what_long_ones_do() {
    let text = "Once upon a time";
    let long = [
        "generate",
        "--prompt",
        text,
        "--max-new-tokens",
        "6",
        "--threads",
        "1",
        "--temperature",
        "0",
        "--json",
    ];
    let expected = json(&long);
    assert_eq!(
        (&expected["generated_tokens"], &expected["threads"]),
        (&6.into(), &1.into())
    );
    for arguments in [
        ["-p", text, "-n", "6", "-t", "1", "--temp", "0"],
        [
            "--prompt",
            text,
            "--max-tokens",
            "6",
            "-t1",
            "--temp=0",
            "--repeat-penalty",
            "1",
        ],
    ] {
        let found = json(&[&["generate", "--json"], &arguments[..]].concat());
        for key in ["text", "tokens", "generated_tokens", "threads"] {
            assert_eq!(found[key], expected[key], "{arguments:?}");
        }
    }
    let bench = json(&["bench", "-p", "8", "-n", "4", "-d", "2", "-r", "1", "-t", "1", "--json"]);
    for (key, value) in [
        ("prompt_tokens", 8),
        ("generate_tokens", 4),
        ("depth", 2),
        ("repeat", 1),
    ] {
        assert_eq!(bench[key], value, "{key}");
    }
}

#[test]
fn layers_on_a_gpu_are_not_counted_and_the_message_says_what_is() {
    for arguments in [&["generate", "-p", "a", "-ngl", "99"][..], &["chat", "-ngl", "99"]] {
        let output = planish(arguments);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains("no -ngl") && errors.contains("--device"), "{errors}");
    }
}

#[test]
fn help_tells_defaults() {
    let from_model = "[default: from generation_config.json, else";
    for (command, defaults) in [("generate", 7), ("chat", 7)] {
        let text = help(command);
        assert_eq!(text.matches(from_model).count(), defaults, "{text}");
        for part in ["Maximum number of", "--max-tokens", "--temp", "-t, --threads"] {
            assert!(text.contains(part), "{part:?} is not in: {text}");
        }
    }
    for (command, parts) in [
        (
            "quantize",
            &["[default: 4]", "[default: 64]", "[default: metal]", "Target format"][..],
        ),
        ("convert", &["Target format"]),
        ("evaluate", &["Tokens per chunk", "[default: 512]", "[default: all]"]),
        (
            "bench",
            &[
                "-p, --prompt-tokens",
                "-n, --generate-tokens",
                "-d, --depth",
                "-r, --repeat",
            ],
        ),
        ("inspect", &["[default: 64]"]),
    ] {
        let text = help(command);
        for part in parts {
            assert!(text.contains(part), "{command}: {part:?} is not in: {text}");
        }
    }
}

/// Nothing is measured that the model cannot do.
#[test]
fn bench_stays_within_the_context() {
    for arguments in [
        &["-p", "5000"][..],
        &["-p", "0", "-n", "5000"],
        &["-p", "0", "-n", "1000", "-d", "4000"],
        &["--batch", "1", "-p", "5000"],
        &["--batch", "1,2", "-n", "18446744073709551615"],
    ] {
        let output = std::process::Command::new(assert_cmd::cargo::cargo_bin!("planish"))
            .arg("bench")
            .args(arguments)
            .output()
            .unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(
            message.contains("tokens are more than the model's context of 512 (--prompt-tokens"),
            "{arguments:?}: {message}"
        );
    }
}

/// The old name of `--chunks` still works.
#[test]
fn chunks_and_pieces_are_one_flag() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("text.txt");
    std::fs::write(&file, "Once upon a time there was a dog. ".repeat(40)).unwrap();
    let evaluate = |flag: &str| {
        json(&[
            "evaluate",
            "--text",
            file.to_str().unwrap(),
            "--context",
            "64",
            flag,
            "2",
            "--json",
        ])
    };
    let found = evaluate("--chunks");
    assert_eq!(found, evaluate("--pieces"));
    assert_eq!((&found["chunks"], &found["scored_tokens"]), (&2.into(), &62.into()));
}
