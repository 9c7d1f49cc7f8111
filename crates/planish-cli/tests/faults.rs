//! Broken surroundings: signals, full disks, files that are cut, values that a type cannot hold. One message, nothing left behind.
//! `PLANISH_ROUNDS` rounds of signals.

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use planish_format::FloatType;
use serde_json::json;
use support::{Plain, Scratch};

/// A checkpoint large enough that its conversion can be caught in the middle.
fn large(scratch: &Scratch, name: &str) {
    let tensors: Vec<Plain> = (0..12)
        .map(|layer| Plain {
            name: format!("model.layers.{layer}.mlp.down_proj.weight"),
            shape: vec![1024, 2048],
            values: (0..1024 * 2048).map(|index| (index % 1009) as f32 / 1009.0).collect(),
        })
        .collect();
    scratch.write(name, &json!({"model_type": "llama"}), FloatType::F32, &tensors);
}

/// Starts a conversion, and waits until its hidden folder is there.
fn conversion(scratch: &Scratch) -> std::process::Child {
    let mut command = scratch.command(&["quantize", "source", "--out", "out"]);
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while !scratch.names().iter().any(|name| name.starts_with(".out")) {
        assert!(start.elapsed() < Duration::from_secs(60), "it does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

#[cfg(unix)]
#[test]
fn signals_leave_nothing_behind() {
    let scratch = Scratch::new();
    large(&scratch, "source");
    let rounds: u64 = std::env::var("PLANISH_ROUNDS").map_or(1, |rounds| rounds.parse().unwrap());
    let signals = [("INT", 130), ("TERM", 143), ("HUP", 129)];
    let mut stopped = 0;
    for (round, (signal, code)) in (0..rounds).flat_map(|round| signals.map(|signal| (round, signal))) {
        let child = conversion(&scratch);
        std::thread::sleep(Duration::from_millis(10 + round * 7 % 50));
        // Systems send TERM and HUP twice.
        let kill = match (signal, round % 2) {
            ("INT", _) | ("TERM", 0) => format!("kill -{signal} {}", child.id()),
            _ => format!(
                "kill -{signal} {0}; sleep 0.002; kill -{signal} {0} 2>/dev/null; true",
                child.id()
            ),
        };
        // It may have been faster.
        let _ = std::process::Command::new("sh")
            .args(["-c", &kill])
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        if output.status.success() {
            assert_eq!(scratch.names(), ["out", "source"], "after {signal}");
            std::fs::remove_dir_all(scratch.path("out")).unwrap();
            continue;
        }
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert_eq!(stderr, "error: stopped: out was not written\n");
        assert_eq!(scratch.names(), ["source"], "after {signal}");
        stopped += 1;
    }
    println!("{stopped} of {} runs were stopped, nothing left behind", 3 * rounds);
}

#[cfg(target_os = "linux")]
#[test]
fn a_source_that_is_cut_meanwhile_is_named() {
    let scratch = Scratch::new();
    large(&scratch, "source");
    let child = conversion(&scratch);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(scratch.path("source/model.safetensors"));
    file.unwrap().set_len(100_000).unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.starts_with("error: source/model.safetensors: changed while it was read") && stderr.lines().count() == 1,
        "{stderr}"
    );
    assert_eq!(scratch.names(), ["source"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_behind_the_output_is_said() {
    let scratch = Scratch::new();
    scratch.llama("source");
    std::fs::write(scratch.path("text"), "Once upon a time there was a word. ".repeat(200)).unwrap();
    for arguments in [
        &["models"][..],
        &["inspect", "source"],
        &["generate", "--prompt", "x", "--max-new-tokens", "2"],
        &["evaluate", "--text", "text", "--context", "32", "--chunks", "1"],
        &[
            "bench",
            "--prompt-tokens",
            "4",
            "--generate-tokens",
            "2",
            "--repeat",
            "1",
        ],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let output = scratch.command(arguments).stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(
            stderr.contains("No space left on device") && !stderr.contains("mistake"),
            "{arguments:?}: {stderr}"
        );
    }
}

/// Finite weights never become infinite in silence.
#[test]
fn values_that_a_type_cannot_hold() {
    let scratch = Scratch::new();
    let tensor = |values: Vec<f32>| Plain {
        name: "model.layers.0.mlp.down_proj.weight".to_owned(),
        shape: vec![4, 128],
        values,
    };
    let large = |size: f32| tensor((0..512).map(|index| (index as f32 / 255.5 - 1.0) * size).collect());
    let config = json!({"model_type": "llama"});
    scratch.write("large", &config, FloatType::F32, &[large(100_000.0)]);
    scratch.succeed(&["quantize", "large", "--out", "packed"]);
    let arguments = ["dequantize", "packed", "--dtype", "float16", "--out", "plain"];
    let message = scratch.fail(&arguments);
    assert!(
        message.starts_with("error: model.layers.0.mlp.down_proj.weight holds -")
            && message.ends_with(
                "which float16 cannot hold: choose another type with --dtype, or --clamp for the largest that it holds"
            ),
        "{message}"
    );
    scratch.fail(&["dequantize", "large", "--dtype", "float16", "--out", "plain"]);
    scratch.fail(&["quantize", "large", "--dtype", "float16", "--out", "plain"]);
    scratch.succeed(&[&arguments[..], &["--clamp"]].concat());
    let checkpoint = scratch.open("plain");
    let stored = checkpoint.tensor("model.layers.0.mlp.down_proj.weight").unwrap();
    let mut values = vec![0.0; 512];
    FloatType::F16.decode(&stored.data, &mut values);
    assert_eq!((values[0], values[511]), (-65504.0, 65504.0));
    assert!(values.iter().all(|value| value.is_finite()));

    // The range of a group is more than its scale can hold.
    let signs = (0..512).map(|index| if index % 2 == 0 { 3e38 } else { -3e38 });
    scratch.write("huge", &config, FloatType::F32, &[tensor(signs.collect())]);
    let message = scratch.fail(&["quantize", "huge", "--out", "plain2"]);
    assert!(
        message.contains("the scale or bias of its group is more than float32 can hold"),
        "{message}"
    );
    scratch.write("edge", &config, FloatType::F16, &[large(65504.0)]);
    for format in ["metal", "mlx"] {
        for bits in ["2", "4", "8"] {
            let out = format!("edge-{format}-{bits}");
            let arguments = ["quantize", "edge", "--format", format, "--bits", bits, "--out", &out];
            if !scratch.run(&arguments).status.success() {
                continue;
            }
            let checkpoint = scratch.open(&out);
            for name in ["scales", if format == "mlx" { "biases" } else { "qbiases" }] {
                let stored = checkpoint
                    .tensor(&format!("model.layers.0.mlp.down_proj.{name}"))
                    .unwrap();
                let mut values = vec![0.0; stored.data.len() / 2];
                FloatType::F16.decode(&stored.data, &mut values);
                assert!(values.iter().all(|value| value.is_finite()), "{out} {name}");
            }
        }
    }
}

#[test]
fn threads_without_bound() {
    let scratch = Scratch::new();
    let arguments = [
        "generate",
        "--prompt",
        "x",
        "--max-new-tokens",
        "1",
        "--threads",
        "100000",
    ];
    let message = scratch.fail(&arguments);
    assert!(
        message.starts_with("error: 100000 threads are more than ") && message.ends_with("(--threads)"),
        "{message}"
    );
}
