//! Keys and values that outgrow the memory: an error with sizes, and what was stored before is still there. The test runs itself
//! once more, in so little address space that it ends.

use std::process::{Command, ExitCode};

use planish_cpu::{Cpu, KeyValueShape, KeyValues};
use planish_ops::{CacheType, SequenceStore, Span};

/// Set where the address space is limited.
const LIMITED: &str = "PLANISH_LIMITED";
/// Of keys and of values: 4 MiB for 64 positions.
const COLS: usize = 64 * 128;
const ROWS: usize = 64;

fn main() -> ExitCode {
    if std::env::var_os(LIMITED).is_some() {
        fill();
        return ExitCode::SUCCESS;
    }
    // What the harness asks of every test, that tools may list it.
    if std::env::args().any(|argument| argument == "--list") {
        println!("keys_and_values_that_outgrow_the_memory: test");
        return ExitCode::SUCCESS;
    }
    // Elsewhere such a limit is not kept, or the emulator of a processor needs more itself.
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        println!("keys_and_values_that_outgrow_the_memory NOT RUN: it needs Linux on x86-64");
        return ExitCode::SUCCESS;
    }
    let own = std::env::current_exe().expect("a path");
    let mut command = Command::new("sh");
    command
        .args(["-c", "ulimit -v 600000; exec \"$0\""])
        .arg(own)
        .env(LIMITED, "1");
    let output = command.output().expect("sh");
    let (said, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{:?} {said} {errors}", output.status);
    assert!(
        said.starts_with("out of memory: keys and values need ")
            && said.contains(" more, and ")
            && said.contains(" are free"),
        "{said}"
    );
    println!("keys_and_values_that_outgrow_the_memory ... ok: {said}");
    ExitCode::SUCCESS
}

/// Two sequences, of which one grows until nothing is left.
fn fill() {
    let cpu = Cpu::new(1).expect("instructions of this machine");
    let shape = KeyValueShape {
        heads: 64,
        head_dim: 128,
        value_dim: 128,
        window: None,
        cache: CacheType::Float32,
    };
    let mut store = KeyValues::new(shape);
    let values = vec![1.0; ROWS * COLS];
    let append = |store: &mut KeyValues, slot: usize, block: usize| {
        let span = Span {
            slot,
            first_row: 0,
            rows: ROWS,
            first_position: block * ROWS,
        };
        store.append(&cpu, &[span], &values, &values)
    };
    for block in 0..20 {
        append(&mut store, 0, block).expect("room for 80 MiB");
    }
    let before = store.bytes(0);
    let mut stored = 0;
    let error = loop {
        match append(&mut store, 1, stored) {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
    };
    assert!((40..200).contains(&stored), "{stored} blocks in 600 MB");
    // The other sequence is whole, and the one that failed goes on where there is room again.
    assert_eq!(store.bytes(0), before);
    store.clear(0);
    append(&mut store, 1, stored).expect("the blocks of the other sequence");
    println!("{error}");
}
