//! System calls that fail, one at a time: whatever the call and the failure, a conversion ends with a whole output, or with exit code 1,
//! one message and nothing left behind; a fetch from the Hub leaves a cache with which the next one succeeds.
//! `PLANISH_ROUNDS` is the number of calls of each function.

#![cfg(target_os = "linux")]

#[path = "../../planish-checkpoint/tests/hub_server/mod.rs"]
#[allow(dead_code, reason = "the tests of the client use the rest")]
mod hub_server;
mod injected;
mod support;

use std::path::Path;
use std::process::{Command, Output};

use hub_server::{Behaviour, HubServer};
use injected::{CACHES, FILES, Fault, faults, shim};
use planish_checkpoint::Checkpoint;
use support::Scratch;

/// Of each function so many calls, from the first on.
fn calls(default: usize) -> usize {
    std::env::var("PLANISH_ROUNDS").map_or(default, |rounds| rounds.parse().unwrap())
}

/// Counts of runs that ended with a message, and of runs that overcame the fault.
#[derive(Default)]
struct Counts {
    failed: usize,
    succeeded: usize,
}

impl Counts {
    /// Whether a run succeeded; it explains itself otherwise.
    fn judge(&mut self, output: &Output, what: &str) -> bool {
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => self.succeeded += 1,
            Some(1) => {
                self.failed += 1;
                let messages = stderr.lines().filter(|line| line.starts_with("error: ")).count();
                assert!(messages == 1 && !stderr.contains("mistake"), "{what}\n{stderr}");
            }
            code => panic!("{what}: exit {code:?}\n{stderr}"),
        }
        output.status.success()
    }

    fn tell(&self, least: usize) {
        let Counts { failed, succeeded } = self;
        println!(
            "{} faults: {failed} ended with a message, {succeeded} were overcome",
            failed + succeeded
        );
        assert!(*failed >= least && *succeeded >= least, "the shim does nothing");
    }
}

fn check_whole(folder: &Path, what: &str) {
    let out = Checkpoint::open(folder).unwrap_or_else(|error| panic!("{what}: {error}"));
    for entry in out.entries() {
        out.read(entry).unwrap();
    }
}

#[test]
fn a_failing_call_leaves_nothing_half_done() {
    let scratch = Scratch::new();
    scratch.llama("source");
    scratch.edit_config("source", |config| config["max_position_embeddings"] = 64.into());
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
        &["convert", "packed", "--to", "gguf", "--out", "out.gguf"],
    ];
    let mut counts = Counts::default();
    for arguments in commands {
        for fault in faults(&FILES, calls(8)) {
            let mut command = scratch.command(arguments);
            fault.inject(&mut command, &shim);
            let what = format!("{arguments:?} with {fault:?}");
            if counts.judge(&command.output().unwrap(), &what) {
                let out = scratch.path(arguments[arguments.iter().position(|flag| *flag == "--out").unwrap() + 1]);
                check_whole(&out, &what);
                let removed = std::fs::remove_dir_all(&out).or_else(|_| std::fs::remove_file(&out));
                removed.unwrap();
            }
            assert_eq!(scratch.names(), before, "{what}");
        }
    }
    counts.tell(50);
}

/// Fetches and lists the model of the server.
fn fetch(scratch: &Scratch, server: &HubServer, fault: Option<(Fault, &Path)>) -> Output {
    let mut command: Command = scratch.command(&["inspect", "org/name"]);
    command
        .env_remove("HF_HUB_OFFLINE")
        .env_remove("HF_TOKEN")
        .env("HF_HOME", scratch.path("home"))
        .env("HF_ENDPOINT", &server.endpoint);
    if let Some((fault, shim)) = fault {
        fault.inject(&mut command, shim);
    }
    command.output().unwrap()
}

#[test]
fn a_fetch_that_fails_leaves_a_cache_that_serves() {
    let scratch = Scratch::new();
    scratch.llama("source");
    let folder = tempfile::tempdir().unwrap();
    let Some(shim) = shim(folder.path()) else {
        println!("no C compiler: NOT RUN");
        return;
    };
    let files = ["config.json", "tokenizer.json", "model.safetensors"];
    let files = files.map(|name| (name, std::fs::read(scratch.path("source").join(name)).unwrap()));
    let served: Vec<(&str, &[u8])> = files.iter().map(|(name, data)| (*name, &data[..])).collect();
    let server = HubServer::start(&served, Behaviour::default());
    let expected = fetch(&scratch, &server, None);
    assert!(
        expected.status.success(),
        "{}",
        String::from_utf8_lossy(&expected.stderr)
    );
    let mut counts = Counts::default();
    for fault in faults(&FILES, calls(3)).chain(faults(&CACHES, calls(3))) {
        std::fs::remove_dir_all(scratch.path("home")).unwrap();
        let what = format!("a fetch with {fault:?}");
        let output = fetch(&scratch, &server, Some((fault, &shim)));
        if counts.judge(&output, &what) {
            assert_eq!(output.stdout, expected.stdout, "{what}");
        }
        let again = fetch(&scratch, &server, None);
        let stderr = String::from_utf8_lossy(&again.stderr);
        assert!(again.status.success(), "{what}, then without: {stderr}");
        assert_eq!(again.stdout, expected.stdout, "{what}");
        let hub = scratch
            .path("home/hub/models--org--name/snapshots")
            .join(hub_server::COMMIT);
        for (name, data) in &files {
            assert!(
                std::fs::read(hub.join(name)).unwrap() == *data,
                "{what}: {name} is not what was served"
            );
        }
    }
    counts.tell(10);
}
