//! The package `planish` of Python: the library's functions and classes with Python's types, errors and names. What they do is done by
//! the library.

#![cfg(feature = "extension")]
#![forbid(unsafe_code)]

mod errors;
mod program;
mod tokenizer;

use pyo3::prelude::*;

/// What the modules of the package are made of.
#[pymodule(gil_used = false)]
fn _planish(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::keep_panics();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    program::register(module)?;
    tokenizer::register(module)
}
