//! Memory that runs out is a message and exit code 1, wherever it happens: commands under limits of their address space.
#![cfg(target_os = "linux")]

mod support;

use std::process::{Command, Output};

use support::Scratch;

/// Runs the program with so many KiB of address space at most.
fn limited(scratch: &Scratch, kib: usize, arguments: &[&str]) -> Output {
    let program = scratch.command(&[]).get_program().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", &format!("ulimit -v {kib}; exec \"$0\" \"$@\"")]);
    command.arg(program).args(arguments).current_dir(scratch.folder.path());
    command.env_remove("RUST_BACKTRACE");
    command.output().unwrap()
}

/// Every limit from one that holds next to nothing up to one that is enough: success, or one message about memory.
fn check(scratch: &Scratch, arguments: &[&str]) {
    // Below that the program itself cannot be started.
    let starts = |kib: &usize| limited(scratch, *kib, &["--version"]).status.success();
    let mut kib = (8..).map(|step| step * 2_000).find(starts).unwrap();
    let mut refused = 0;
    loop {
        let output = limited(scratch, kib, arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.code() {
            Some(0) => break,
            Some(1) => {
                let about_memory = [
                    "out of memory",
                    "Cannot allocate memory",
                    "Resource temporarily unavailable",
                ];
                assert!(
                    about_memory.iter().any(|words| error.contains(words)) && !error.contains("mistake in planish"),
                    "{arguments:?} in {kib} KiB: {error}"
                );
                refused += 1;
            }
            other => panic!("{arguments:?} in {kib} KiB: {other:?} {:?}: {error}", output.status),
        }
        kib += kib / 16;
        assert!(kib < 4_000_000, "{arguments:?} never succeeds: {error}");
    }
    assert!(refused > 0, "{arguments:?} was never refused");
}

#[test]
fn commands_that_run_out_of_memory_say_so() {
    let scratch = Scratch::new();
    scratch.llama("m");
    std::fs::write(scratch.path("t"), "Once upon a time there was a dog. ".repeat(40)).unwrap();
    check(
        &scratch,
        &[
            "generate",
            "--prompt",
            "Once upon",
            "--max-new-tokens",
            "3",
            "--threads",
            "2",
        ],
    );
    check(&scratch, &["inspect", "m"]);
    check(
        &scratch,
        &["quantize", "m", "--out", "q", "--method", "transformers", "--force"],
    );
    check(
        &scratch,
        &[
            "evaluate",
            "--text",
            "t",
            "--context",
            "64",
            "--chunks",
            "1",
            "--threads",
            "2",
        ],
    );
}

/// With what was wanted, and what there is.
#[test]
fn a_model_that_is_too_large_is_told_with_its_size() {
    let scratch = Scratch::new();
    let output = limited(
        &scratch,
        400_000,
        &["bench", "--shape", "llama-3.2-1b", "--threads", "2"],
    );
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains("error: out of memory: ") && (error.contains(" are free") || error.contains("(ulimit -v)")),
        "{error}"
    );
}

/// `bench` takes a gigabyte to find out how fast memory is.
#[test]
fn bench_that_runs_out_of_memory_says_so() {
    let scratch = Scratch::new();
    let arguments = ["bench", "-p", "4", "-n", "1", "-r", "1", "--threads", "2"];
    let output = limited(&scratch, 600_000, &arguments);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("error: out of memory: "), "{error}");
}
