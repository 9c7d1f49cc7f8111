//! The cache of compiled kernels where system calls fail: nothing but the cached code is lost, and what is read from it is right.

#![cfg(target_os = "linux")]

#[path = "../../planish-cli/tests/injected/mod.rs"]
mod injected;

use std::path::Path;
use std::process::Command;

use injected::{FILES, faults, shim};
use planish_gpu::CodeCache;

const KEY: [&str; 2] = ["compiler", "text"];
const FOLDER: &str = "PLANISH_TEST_CACHE";

/// Longer than what is written at once.
fn code() -> Vec<u8> {
    (0..300_000u32).flat_map(u32::to_le_bytes).collect()
}

/// What the runs below are: keeps code, and reads it again.
#[test]
#[ignore = "run by the test below, with a call that fails"]
fn keep() {
    let cache = CodeCache::at(Path::new(&std::env::var_os(FOLDER).unwrap()));
    cache.put(&KEY, &code());
    assert!(cache.get(&KEY).is_none_or(|found| found == code()));
}

#[test]
fn a_failing_call_costs_no_more_than_the_code() {
    let folder = tempfile::tempdir().unwrap();
    let Some(shim) = shim(folder.path()) else {
        println!("no C compiler: NOT RUN");
        return;
    };
    let calls = std::env::var("PLANISH_ROUNDS").map_or(4, |rounds| rounds.parse().unwrap());
    let (mut kept, mut lost) = (0, 0);
    for fault in faults(&FILES, calls) {
        let cache = tempfile::tempdir().unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "keep", "--ignored", "--test-threads=1"])
            .env(FOLDER, cache.path());
        fault.inject(&mut command, &shim);
        let output = command.output().unwrap();
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{fault:?}: {told}");
        match CodeCache::at(cache.path()).get(&KEY) {
            Some(found) => {
                assert!(found == code(), "{fault:?}");
                kept += 1;
            }
            None => lost += 1,
        }
        let files = std::fs::read_dir(cache.path()).unwrap().count();
        assert!(files <= 1, "{fault:?}: {files} files are left");
    }
    println!(
        "{} faults: {kept} times the code was kept, {lost} times lost",
        kept + lost
    );
    assert!(kept > 0 && lost > 0, "the shim does nothing");
}
