//! `planish generate --prompts` and `planish bench --batch` from outside, beside single prompts.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::NamedTempFile;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../planish/tests/golden/tiny")
}

fn planish(command: &str, arguments: &[&str]) -> Output {
    Command::new(assert_cmd::cargo::cargo_bin!("planish"))
        .arg(command)
        .arg(tiny())
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

fn succeed(command: &str, arguments: &[&str]) -> String {
    let output = planish(command, arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {errors}");
    assert_eq!(errors, "");
    String::from_utf8(output.stdout).unwrap()
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

fn path(file: &NamedTempFile) -> &str {
    file.path().to_str().unwrap()
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What an answer says, whatever it took.
fn told(answer: &Value) -> [&Value; 5] {
    ["text", "tokens", "finish", "prompt_tokens", "seed"].map(|key| &answer[key])
}

const PROMPTS: [&str; 5] = [
    "Hello world",
    "Hello",
    "A longer prompt than the others, of some more words",
    "world",
    "Why?",
];

#[test]
fn prompts_of_a_file_are_answered_as_each_alone_and_in_order() {
    let flags = [
        "--json",
        "--max-new-tokens",
        "12",
        "--temperature",
        "1.2",
        "--seed",
        "7",
    ];
    // Lines without a prompt are passed over, but counted.
    let file = file(&PROMPTS.join("\n\n"));
    for parallel in ["1", "3", "16"] {
        let arguments = [&flags[..], &["--prompts", path(&file), "--parallel", parallel]].concat();
        let answers = lines(&succeed("generate", &arguments));
        assert_eq!(answers.len(), PROMPTS.len());
        for (index, (answer, prompt)) in answers.iter().zip(PROMPTS).enumerate() {
            assert_eq!(answer["line"], 2 * index + 1);
            let alone = succeed("generate", &[&flags[..], &["--prompt", prompt]].concat());
            assert_eq!(told(answer), told(&serde_json::from_str(&alone).unwrap()), "{prompt}");
        }
    }
}

#[test]
fn a_line_of_json_may_say_how_it_is_answered() {
    let rows = [
        json!({"prompt": "Hello world", "max_new_tokens": 3}),
        json!({"messages": [{"role": "user", "content": "Hello world"}], "max_tokens": 4}),
        json!({"prompt": "Hello", "temperature": 1.5, "seed": 3, "top_k": 20, "repetition_penalty": 1.2}),
    ];
    let file = file(&rows.map(|row| row.to_string()).join("\n"));
    let flags = ["--json", "--max-new-tokens", "9"];
    let answers = lines(&succeed(
        "generate",
        &[&flags[..], &["--prompts", path(&file)]].concat(),
    ));
    let alone = [
        ["--prompt", "Hello world", "--max-new-tokens", "3"].as_slice(),
        &["--prompt", "Hello world", "--max-new-tokens", "4"],
        &[
            "--prompt",
            "Hello",
            "--max-new-tokens",
            "9",
            "--temperature",
            "1.5",
            "--seed",
            "3",
            "--top-k",
            "20",
            "--repetition-penalty",
            "1.2",
        ],
    ];
    for (answer, arguments) in answers.iter().zip(alone) {
        let alone: Value = serde_json::from_str(&succeed("generate", &[&["--json"], arguments].concat())).unwrap();
        assert_eq!(told(answer)[..4], told(&alone)[..4], "{arguments:?}");
    }
    assert_eq!(answers[2]["seed"], 3);
}

#[test]
fn answers_are_told_apart_as_text() {
    let file = file("Hello world\nHello\n");
    let flags = ["--max-new-tokens", "6"];
    let found = succeed("generate", &[&flags[..], &["--prompts", path(&file)]].concat());
    let alone = |prompt| succeed("generate", &[&flags[..], &["--prompt", prompt]].concat());
    let name = path(&file);
    let expected = [("Hello world", 1), ("Hello", 2)].map(|(prompt, line)| {
        let text = alone(prompt);
        format!("=== {name}, line {line}\n{}\n", text.trim_end_matches('\n'))
    });
    assert_eq!(found, expected.concat());
}

#[test]
fn bad_lines_are_named_before_anything_runs() {
    let long = "Hello world ".repeat(600);
    let good = r#"{"prompt": "Hello"}"#;
    let cases = [
        (format!("{good}\n{{\"prompt\": 3}}"), "line 2", "string"),
        (format!("{good}\n\n{{\"prompt\": \"a\", \"top\": 3}}"), "line 3", "top"),
        (format!("{good}\n{{}}"), "line 2", "either prompt or messages"),
        (format!("{good}\nHello"), "line 2", "expected"),
        (
            format!("{good}\n{{\"prompt\": \"a\", \"top_p\": 3}}"),
            "line 2",
            "top_p is 3",
        ),
        (format!("Hello\n{long}"), "line 2", "context"),
        (format!("Hello\n{good}"), "line 2", "looks like JSON"),
        (format!("\u{feff}{good}\nHello"), "line 2", "expected"),
        ("\n".to_owned(), "", "no prompt"),
    ];
    for (text, line, what) in &cases {
        let file = file(text);
        let output = planish("generate", &["--prompts", path(&file)]);
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(output.stdout.is_empty(), "{text}");
        for part in [path(&file), line, what] {
            assert!(errors.contains(part), "{part:?} in {errors}");
        }
    }
    let errors = planish("generate", &["--prompts", "no-such-file"]).stderr;
    assert!(String::from_utf8_lossy(&errors).contains("no-such-file"));
    for arguments in [
        ["--prompts", "a", "--prompt", "b"].as_slice(),
        &["--prompts", "a", "--parallel", "0"],
        &["--prompt", "a", "--parallel", "2"],
        &[],
    ] {
        assert_eq!(planish("generate", arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_batch_is_measured() {
    let flags = ["--repeat", "2", "--prompt-tokens", "9", "--generate-tokens", "5"];
    let batch = [&flags[..], &["--batch", "1,3,20"]].concat();
    let report: Value = serde_json::from_str(&succeed("bench", &[&batch[..], &["--json"]].concat())).unwrap();
    assert_eq!(
        (&report["prompt_tokens"], &report["generate_tokens"]),
        (&9.into(), &5.into())
    );
    let rows = report["batch"].as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for (row, sequences) in rows.iter().zip([1, 3, 20]) {
        let number = |key: &str| row[key].as_f64().unwrap();
        assert_eq!(row["sequences"], sequences);
        for key in [
            "decode_tokens_per_s",
            "prefill_tokens_per_s",
            "mean_first_token_s",
            "peak_memory_bytes",
        ] {
            assert!(number(key) > 0.0, "{key}");
        }
        assert!(number("last_first_token_s") >= number("mean_first_token_s"));
        let of_all = number("decode_tokens_per_s_of_each") * f64::from(sequences);
        assert!((of_all / number("decode_tokens_per_s") - 1.0).abs() < 1e-9);
        assert_eq!(row["decode_runs_tokens_per_s"].as_array().unwrap().len(), 2);
        assert!(row["memory_bytes_per_sequence"].is_u64());
        // Each has a block of keys and values, however many there are.
        assert!(number("memory_bytes_per_sequence") > 0.0);
        assert_eq!(row["memory_bytes_per_sequence"], rows[0]["memory_bytes_per_sequence"]);
    }
    let text = succeed("bench", &batch);
    assert!(text.contains("after a prompt of 9"), "{text}");
    assert_eq!(text.lines().count(), 6, "{text}");
    // Unless told, prompts are as long as those of others' benches.
    let short: Value = serde_json::from_str(&succeed(
        "bench",
        &["--batch", "2", "--repeat", "1", "-n", "2", "--json"],
    ))
    .unwrap();
    assert_eq!(short["prompt_tokens"], 128);
    for arguments in [["--batch", "0"].as_slice(), &["--batch", "2", "--depth", "4"]] {
        assert_eq!(planish("bench", arguments).status.code(), Some(2), "{arguments:?}");
    }
    let none = planish("bench", &["--batch", "2", "--prompt-tokens", "0"]);
    assert_eq!(none.status.code(), Some(1));
}
