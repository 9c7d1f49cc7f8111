//! `planish generate` and `planish chat` from outside: answers against transformers' generate() (tests/golden/tiny), streams,
//! conversations through a pipe, interruptions and bad input.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

fn tiny() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../planish/tests/golden/tiny")
}

fn program() -> Command {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin!("planish"));
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn generate(arguments: &[&str]) -> Output {
    program().arg("generate").arg(tiny()).args(arguments).output().unwrap()
}

fn chat(input: &str, arguments: &[&str]) -> Output {
    let mut child = program()
        .arg("chat")
        .arg(tiny())
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn greedy_answers_are_those_of_transformers() {
    let golden = std::fs::read_to_string(tiny().join("golden.json")).unwrap();
    let golden: Value = serde_json::from_str(&golden).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 16);
    for case in cases {
        let prompt = case["prompt"].as_str().unwrap();
        let penalty = case["repetition_penalty"].to_string();
        let mut arguments = vec![
            "--exact",
            "--json",
            "--max-new-tokens",
            "40",
            "--repetition-penalty",
            &penalty,
        ];
        arguments.extend(["--prompt", prompt]);
        if case["raw"] == true {
            arguments.push("--raw");
        }
        let output = generate(&arguments);
        assert!(output.status.success(), "{}", text(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        for key in ["prompt_tokens", "tokens", "text", "finish"] {
            assert_eq!(
                found[key], case[key],
                "{key} of {prompt:?}, raw {}, penalty {penalty}",
                case["raw"]
            );
        }
    }
}

#[test]
fn the_text_is_streamed_and_ends_with_a_line_break() {
    let json = generate(&["--prompt", "Hello world", "--json", "--max-new-tokens", "20"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    let plain = generate(&["--prompt", "Hello world", "--max-new-tokens", "20"]);
    assert_eq!(text(&plain.stdout), format!("{}\n", json["text"].as_str().unwrap()));
    assert_eq!(text(&plain.stderr), "");
    let verbose = generate(&["--prompt", "Hello world", "--max-new-tokens", "20", "--verbose"]);
    assert!(text(&verbose.stderr).contains("tokens/s"), "{}", text(&verbose.stderr));
}

#[test]
fn the_prompt_may_come_from_standard_input() {
    let mut child = program()
        .arg("generate")
        .arg(tiny())
        .args(["--prompt", "-", "--max-new-tokens", "20"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all("Hello world\n".as_bytes())
        .unwrap();
    let piped = child.wait_with_output().unwrap();
    let given = generate(&["--prompt", "Hello world", "--max-new-tokens", "20"]);
    assert_eq!(text(&piped.stdout), text(&given.stdout));
}

#[test]
fn a_seed_repeats_the_text_and_another_changes_it() {
    let sample = |seed: &str| {
        let arguments = [
            "--prompt",
            "Hello",
            "--raw",
            "--temperature",
            "1.5",
            "--max-new-tokens",
            "24",
            "--seed",
            seed,
        ];
        text(&generate(&arguments).stdout)
    };
    assert_eq!(sample("1"), sample("1"));
    assert_ne!(sample("1"), sample("2"));
}

#[test]
fn weights_can_be_quantized_while_loading() {
    let output = generate(&[
        "--prompt",
        "Hello world",
        "--bits",
        "8",
        "--group-size",
        "32",
        "--max-new-tokens",
        "8",
    ]);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn a_conversation_through_a_pipe_remembers_and_reuses() {
    let output = chat(
        "Hello world\nAnd then?\n/reset\nHello world\n",
        &["--verbose", "--max-new-tokens", "12"],
    );
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{err}");
    let statistics: Vec<&str> = err.lines().filter(|line| line.contains("tokens read")).collect();
    assert_eq!(statistics.len(), 3, "{err}");
    assert!(!statistics[0].contains("remembered"), "{err}");
    assert!(statistics[1].contains("remembered"), "{err}");
    assert!(!statistics[2].contains("remembered"), "{err}");
    // After /reset the same question gets the same answer.
    let single = chat("Hello world\n", &["--max-new-tokens", "12"]);
    let single = text(&single.stdout);
    assert!(out.starts_with(&single) && out.ends_with(&single), "{out:?} {single:?}");
}

#[test]
fn commands_are_obeyed_and_unknown_ones_get_a_hint() {
    let output = chat("/help\n/what now\n/system Be brief.\n\n/exit\nnever read\n", &[]);
    let err = text(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("/reset"), "{err}");
    assert!(err.contains("no command /what"), "{err}");
    assert!(err.contains("with this system message"), "{err}");
    assert_eq!(text(&output.stdout), "");
}

#[test]
fn lines_can_be_joined_into_one_message() {
    // Tokens read for each message.
    let read = |input: &str| -> Vec<String> {
        let err = text(&chat(input, &["--max-new-tokens", "8", "--verbose"]).stderr);
        let lines = err.lines().filter_map(|line| line.split_once(" tokens read"));
        lines.map(|(count, _)| count.to_owned()).collect()
    };
    let joined = read("one\\\ntwo\n");
    assert_eq!(joined.len(), 1, "{joined:?}");
    assert_eq!(joined, read("\"\"\"one\ntwo\"\"\"\n"));
    assert_ne!(joined, read("one\n"));
}

#[test]
fn a_message_that_does_not_fit_is_refused_and_the_conversation_goes_on() {
    let long = "x".repeat(2000);
    let output = chat(&format!("{long}\nHello\n"), &["--max-new-tokens", "4"]);
    let err = text(&output.stderr);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("the model's context holds 512"), "{err}");
    assert!(!output.stdout.is_empty());
}

#[test]
fn a_closed_pipe_ends_quietly() {
    let mut child = long_answer();
    let mut first = [0u8; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    drop(child.stdout.take());
    let mut err = String::new();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    assert!(child.wait().unwrap().success(), "{err}");
    assert_eq!(err, "");
}

/// An answer that goes on until the context is full: the end tokens are kept away by sampling from a model without them.
fn long_answer() -> Child {
    let arguments = [
        "--prompt",
        "Hello",
        "--raw",
        "--temperature",
        "5",
        "--top-k",
        "0",
        "--max-new-tokens",
        "500",
    ];
    program()
        .arg("generate")
        .arg(endless())
        .args(arguments)
        .spawn()
        .unwrap()
}

/// The tiny model without end tokens, and with room for a long answer.
fn endless() -> PathBuf {
    static FOLDER: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("endless");
        std::fs::create_dir_all(&folder).unwrap();
        for file in ["model.safetensors", "tokenizer.json"] {
            std::fs::copy(tiny().join(file), folder.join(file)).unwrap();
        }
        let tokens = std::fs::read_to_string(tiny().join("tokenizer_config.json")).unwrap();
        let mut tokens: Value = serde_json::from_str(&tokens).unwrap();
        tokens.as_object_mut().unwrap().remove("eos_token").unwrap();
        std::fs::write(folder.join("tokenizer_config.json"), tokens.to_string()).unwrap();
        let config = std::fs::read_to_string(tiny().join("config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&config).unwrap();
        config["max_position_embeddings"] = 100_000.into();
        config["eos_token_id"] = 999_999.into();
        std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
        folder
    });
    folder.clone()
}

#[cfg(unix)]
fn interrupt(child: &Child) {
    let killed = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(killed.success());
}

#[cfg(unix)]
#[test]
fn control_c_stops_an_answer_cleanly() {
    let arguments = [
        "--prompt",
        "Hello",
        "--raw",
        "--temperature",
        "5",
        "--max-new-tokens",
        "90000",
    ];
    let mut child = program()
        .arg("generate")
        .arg(endless())
        .args(arguments)
        .spawn()
        .unwrap();
    let mut first = [0u8; 1];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let start = Instant::now();
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(output.stdout.ends_with(b"\n"));
    assert_eq!(text(&output.stderr), "");
}

#[cfg(unix)]
#[test]
fn control_c_stops_the_answer_and_not_the_chat() {
    let arguments = ["--temperature", "5", "--max-new-tokens", "90000"];
    let mut child = program()
        .arg("chat")
        .arg(endless())
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"Hello\n").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0u8; 1]).unwrap();
    interrupt(&child);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    // Nobody reads the answer here: it must not block the program.
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || stdout.read_to_end(&mut Vec::new()));
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "(stopped)\n");
    stdin.write_all(b"/help\n/exit\n").unwrap();
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("/reset"), "{rest}");
    assert!(child.wait().unwrap().success());
    reader.join().unwrap().unwrap();
}

/// Arguments, exit code, what the message contains.
const REFUSED: [(&[&str], i32, &str); 9] = [
    (&["--prompt", ""], 1, "error: the prompt is empty"),
    (
        &["--prompt", "a", "--temperature", "-1"],
        1,
        "error: temperature is -1, expected a number of at least 0",
    ),
    (
        &["--prompt", "a", "--top-p", "2"],
        1,
        "error: top_p is 2, expected a number from 0 to 1",
    ),
    (&["--prompt", "a", "--device", "abacus"], 2, "--device"),
    (&["--prompt", "a", "--threads", "0"], 1, "--threads 0"),
    (&["--prompt", "a", "--bits", "7"], 1, "--bits 7"),
    (&[], 2, "--prompt"),
    (&["--prompt", "a", "--seed", "x"], 2, "--seed"),
    (&["--prompt", "a", "--nonsense"], 2, "--nonsense"),
];

/// With a GPU the story is told, without one the message says what to do.
#[test]
fn an_absent_gpu_is_explained() {
    for device in ["cuda", "metal"] {
        let output = generate(&["--raw", "--prompt", "a", "--max-new-tokens", "1", "--device", device]);
        let err = text(&output.stderr);
        match output.status.code() {
            Some(0) => assert!(!output.stdout.is_empty(), "{device}: {err}"),
            code => {
                assert_eq!(code, Some(1), "{device}: {err}");
                assert!(
                    err.contains("--device cpu") && !err.contains("panicked"),
                    "{device}: {err}"
                );
                assert_eq!(text(&output.stdout), "");
            }
        }
    }
}

#[test]
fn wrong_usage_is_explained() {
    for (arguments, code, message) in REFUSED {
        let raw: &[&str] = if arguments.first() == Some(&"--prompt") {
            &["--raw"]
        } else {
            &[]
        };
        let output = generate(&[arguments, raw].concat());
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {err}");
        assert!(err.contains(message), "{arguments:?}: {err}");
        assert!(!err.contains("panicked"), "{err}");
        assert_eq!(text(&output.stdout), "");
    }
}

#[test]
fn a_model_that_cannot_talk_says_why() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["model.safetensors", "config.json", "tokenizer.json"] {
        std::fs::copy(tiny().join(file), folder.path().join(file)).unwrap();
    }
    let mute = program().arg("chat").arg(folder.path()).output().unwrap();
    assert_eq!(mute.status.code(), Some(1));
    assert!(
        text(&mute.stderr).contains("no chat template"),
        "{}",
        text(&mute.stderr)
    );
    std::fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    let blind = program()
        .arg("generate")
        .arg(folder.path())
        .args(["--prompt", "a"])
        .output()
        .unwrap();
    assert_eq!(blind.status.code(), Some(1));
    assert!(
        text(&blind.stderr).contains("tokenizer.json"),
        "{}",
        text(&blind.stderr)
    );
    let absent = program()
        .args(["generate", "./no/such", "--prompt", "a"])
        .output()
        .unwrap();
    assert_eq!(absent.status.code(), Some(1));
    assert!(
        text(&absent.stderr).starts_with("error: ./no/such"),
        "{}",
        text(&absent.stderr)
    );
}
