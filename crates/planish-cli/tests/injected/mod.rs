//! The shim that lets one system call of a program fail.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Compiles the shim; `None` without a C compiler.
pub fn shim(folder: &Path) -> Option<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../planish-cli/tests/injected/shim.c");
    let library = folder.join("shim.so");
    let mut compiler = Command::new("cc");
    let compiler = compiler.args(["-shared", "-fPIC", "-O1", "-D_LARGEFILE64_SOURCE", "-o"]);
    let status = compiler.arg(&library).arg(source).arg("-ldl").status().ok()?;
    assert!(status.success(), "the shim does not compile");
    Some(library)
}

/// One call that fails: the function, which of its calls, and what it says; 0 is half done.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    pub call: &'static str,
    pub at: usize,
    pub error: i32,
}

impl Fault {
    pub fn inject(self, command: &mut Command, shim: &Path) {
        command
            .env("LD_PRELOAD", shim)
            .env("FAULT_CALL", self.call)
            .env("FAULT_AT", self.at.to_string())
            .env("FAULT_ERRNO", self.error.to_string());
    }
}

/// Of files: I/O error, disk full, quota reached, interrupted, half done, no permission, too many.
pub const FILES: [(&str, &[i32]); 8] = [
    ("write", &[5, 28, 122, 4, 0]),
    ("read", &[5, 4, 0]),
    ("fsync", &[5, 28]),
    ("ftruncate64", &[5, 28]),
    ("lseek64", &[5]),
    ("open64", &[5, 13, 24]),
    ("mkdir", &[5, 28]),
    ("rename", &[5, 28]),
];

/// What a cache needs besides: interrupted, half done, the connection gone; links that cannot be made.
#[allow(dead_code, reason = "not every test file has a cache")]
pub const CACHES: [(&str, &[i32]); 5] = [
    ("recv", &[4, 0, 104]),
    ("send", &[4, 0, 104]),
    ("symlink", &[1, 28]),
    ("fdatasync", &[5, 28]),
    ("flock", &[4, 37]),
];

/// Each function's first `calls` calls with each of its errors.
pub fn faults(of: &'static [(&'static str, &'static [i32])], calls: usize) -> impl Iterator<Item = Fault> {
    let errors = of
        .iter()
        .flat_map(|(call, errors)| errors.iter().map(move |error| (*call, *error)));
    errors.flat_map(move |(call, error)| (0..calls).map(move |at| Fault { call, at, error }))
}
