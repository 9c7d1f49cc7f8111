//! System calls that fail, one at a time: whatever the call and the failure, a conversion ends with a whole output, or with exit code 1,
//! one message and nothing left behind.

#![cfg(target_os = "linux")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use planish_checkpoint::Checkpoint;
use support::Scratch;

/// Of each function so many calls, from the first on.
const CALLS: usize = 8;

/// Functions and what they may say: I/O error, disk full, quota reached, interrupted, half done.
const FAULTS: [(&str, &[i32]); 8] = [
    ("write", &[5, 28, 122, 4, 0]),
    ("read", &[5, 4, 0]),
    ("fsync", &[5, 28]),
    ("ftruncate64", &[5, 28]),
    ("lseek64", &[5]),
    ("open64", &[5, 13, 24]),
    ("mkdir", &[5, 28]),
    ("rename", &[5, 28]),
];

/// Compiles the shim; `None` without a C compiler.
fn shim(folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/injected/shim.c");
    let library = folder.join("shim.so");
    let mut compiler = Command::new("cc");
    let compiler = compiler.args(["-shared", "-fPIC", "-O1", "-D_LARGEFILE64_SOURCE", "-o"]);
    let status = compiler.arg(&library).arg(source).arg("-ldl").status().ok()?;
    assert!(status.success(), "the shim does not compile");
    Some(library)
}

#[test]
fn a_failing_call_leaves_nothing_half_done() {
    let scratch = Scratch::new();
    scratch.llama("source");
    scratch.succeed(&["quantize", "source", "--out", "packed", "--group-size", "32"]);
    let folder = tempfile::tempdir().unwrap();
    let Some(shim) = shim(folder.path()) else {
        println!("no C compiler: NOT RUN");
        return;
    };
    let before = scratch.names();
    let commands = [
        &["quantize", "source", "--out", "out", "--group-size", "32"][..],
        &["dequantize", "packed", "--out", "out"],
        &["convert", "packed", "--to", "mlx", "--out", "out"],
    ];
    let (mut failed, mut succeeded) = (0, 0);
    for arguments in commands {
        for (call, errors) in FAULTS {
            for (&error, at) in errors.iter().flat_map(|error| (0..CALLS).map(move |at| (error, at))) {
                let mut command = scratch.command(arguments);
                command
                    .env("LD_PRELOAD", &shim)
                    .env("FAULT_CALL", call)
                    .env("FAULT_AT", at.to_string())
                    .env("FAULT_ERRNO", error.to_string());
                let output = command.output().unwrap();
                let stderr = String::from_utf8_lossy(&output.stderr);
                let what = format!(
                    "{arguments:?}, {call} number {at} says {error}: {:?}\n{stderr}",
                    output.status
                );
                match output.status.code() {
                    Some(0) => {
                        succeeded += 1;
                        let out =
                            Checkpoint::open(&scratch.path("out")).unwrap_or_else(|error| panic!("{what}{error}"));
                        for entry in out.entries() {
                            out.read(entry).unwrap();
                        }
                        std::fs::remove_dir_all(scratch.path("out")).unwrap();
                    }
                    Some(1) => {
                        failed += 1;
                        let messages = stderr.lines().filter(|line| line.starts_with("error: ")).count();
                        assert!(messages == 1 && !stderr.contains("mistake"), "{what}");
                    }
                    _ => panic!("{what}"),
                }
                assert_eq!(scratch.names(), before, "{what}");
            }
        }
    }
    println!(
        "{} faults: {failed} ended with a message, {succeeded} were overcome",
        failed + succeeded
    );
    assert!(failed > 50 && succeeded > 50, "the shim does nothing");
}
