//! Model folders as people have them: what the rest of the ecosystem reads is read, what a checkpoint asks for is done or told.

mod answers;
mod folders;
#[path = "../support/mod.rs"]
mod support;

use std::path::Path;

use serde_json::Value;
use support::Scratch;

/// Standard output without its last line break, and standard error.
fn told(scratch: &Scratch, arguments: &[&str]) -> (String, String) {
    let output = scratch.run(arguments);
    let stdout = String::from_utf8(output.stdout).unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{arguments:?}: {stderr}");
    (stdout.strip_suffix('\n').unwrap_or(&stdout).to_owned(), stderr)
}

/// The text that a model writes after `x=a`, with nothing to say about it.
fn said(scratch: &Scratch, model: &str, more: &[&str]) -> String {
    let arguments = [
        &["generate", model, "--raw", "--prompt", "x=a", "--max-new-tokens", "6"][..],
        more,
    ]
    .concat();
    let (text, notices) = told(scratch, &arguments);
    assert_eq!(notices, "", "{arguments:?}");
    text
}

fn write(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}
