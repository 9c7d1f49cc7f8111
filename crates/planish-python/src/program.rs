//! The program `planish` in an interpreter of its own.

use std::ffi::OsString;

use pyo3::prelude::*;

/// Runs the program; the arguments begin with its name. Returns the exit code.
#[pyfunction]
fn main(py: Python<'_>, arguments: Vec<OsString>) -> u8 {
    py.detach(|| planish_cli::main(arguments))
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(main, module)?)
}
