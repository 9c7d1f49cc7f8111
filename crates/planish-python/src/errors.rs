//! Errors of the library as Python's, and calls of it without the interpreter's lock.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::sync::Mutex;

use planish::{Error, ErrorKind};
use pyo3::exceptions::{
    PyFileNotFoundError, PyKeyboardInterrupt, PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::marker::Ungil;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// The error of Python that says it, with the library's words.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
        ErrorKind::Value => PyValueError::new_err(text),
        ErrorKind::Memory => PyMemoryError::new_err(text),
        ErrorKind::System => PyOSError::new_err(text),
        ErrorKind::Device => PyRuntimeError::new_err(text),
        // Nothing else asks for an end.
        ErrorKind::Stopped => PyKeyboardInterrupt::new_err(text),
        ErrorKind::Hub => {
            static HUB: PyOnceLock<Py<PyType>> = PyOnceLock::new();
            own(py, &HUB, "HubError", text)
        }
        ErrorKind::Unsupported => unsupported(py, text),
    }
}

/// `planish.UnsupportedError`.
pub fn unsupported(py: Python<'_>, text: String) -> PyErr {
    static UNSUPPORTED: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    own(py, &UNSUPPORTED, "UnsupportedError", text)
}

/// One of the package's own, which Python declares.
fn own(py: Python<'_>, class: &'static PyOnceLock<Py<PyType>>, name: &str, text: String) -> PyErr {
    match class.import(py, "planish.errors", name) {
        Ok(class) => PyErr::from_type(class.clone(), text),
        Err(error) => error,
    }
}

/// An argument of a wrong type.
pub fn wrong_type(name: &str, expected: &str, found: &Bound<'_, PyAny>) -> PyErr {
    match found.get_type().name() {
        Ok(found) => PyTypeError::new_err(format!("{name}: expected {expected}, found {found}")),
        Err(error) => error,
    }
}

/// Where and why the last panic was.
static PANIC: Mutex<String> = Mutex::new(String::new());

/// Panics are told by the exceptions that they become.
pub fn keep_panics() {
    set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        if !planish::in_foreign_code()
            && let Ok(mut last) = PANIC.lock()
        {
            *last = panic.to_string();
        }
    }));
}

/// Works without the interpreter's lock. A panic is a mistake of planish, and an exception like others.
pub fn detached<T: Ungil>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Ungil) -> PyResult<T> {
    match py.detach(|| catch_unwind(AssertUnwindSafe(work))) {
        Ok(result) => result.map_err(|error| raised(py, &error)),
        Err(_) => {
            let last = PANIC.lock().map(|last| last.clone()).unwrap_or_default();
            Err(PyRuntimeError::new_err(format!(
                "a mistake in planish itself, please report it: {last}"
            )))
        }
    }
}
