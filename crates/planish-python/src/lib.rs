//! The package `planish` of Python: the library's functions and classes with Python's types, errors and names. What they do is done by
//! the library; what Python's users see is in `python/planish`, made of what is here.

#![cfg(feature = "extension")]
#![deny(unsafe_code)]

mod array;
mod checkpoints;
mod errors;
mod hook;
mod memory;
mod model;
mod options;
mod program;
mod progress;
mod serving;
mod stream;
mod tokenizer;

use pyo3::prelude::*;

/// What the modules of the package are made of.
#[pymodule(gil_used = false)]
fn _planish(module: &Bound<'_, PyModule>) -> PyResult<()> {
    errors::keep_panics();
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    array::register(module)?;
    checkpoints::register(module)?;
    hook::register(module)?;
    model::register(module)?;
    program::register(module)?;
    serving::register(module)?;
    stream::register(module)?;
    tokenizer::register(module)
}
