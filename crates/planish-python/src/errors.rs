//! Errors of the library as Python's, and calls of it that leave the interpreter free.

use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use planish::{Error, ErrorKind};
use pyo3::exceptions::{
    PyFileNotFoundError, PyKeyboardInterrupt, PyMemoryError, PyOSError, PyRuntimeError, PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

/// How often Ctrl-C is looked for.
pub const LOOK: Duration = Duration::from_millis(50);

/// The error of Python that says it, with the library's words.
pub fn raised(py: Python<'_>, error: &Error) -> PyErr {
    raised_as(py, error.kind(), error.to_string())
}

/// The error of Python for a class of errors.
pub fn raised_as(py: Python<'_>, kind: ErrorKind, text: String) -> PyErr {
    match kind {
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

/// A value out of its range.
pub fn wrong_value(name: &str, expected: &str, found: &str) -> PyErr {
    PyValueError::new_err(format!("{name} is {found}, expected {expected}"))
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

/// A panic is a mistake of planish, and an exception like others.
pub fn panicked() -> PyErr {
    let last = PANIC.lock().map(|last| last.clone()).unwrap_or_default();
    PyRuntimeError::new_err(format!("a mistake in planish itself, please report it: {last}"))
}

/// Works without the interpreter's lock: for what takes no time to speak of.
pub fn detached<T: Send>(py: Python<'_>, work: impl FnOnce() -> Result<T, Error> + Send) -> PyResult<T> {
    caught(py, || Ok(work()))?.map_err(|error| raised(py, &error))
}

/// As [`detached`], for work whose errors are Python's.
pub fn caught<T: Send>(py: Python<'_>, work: impl FnOnce() -> PyResult<T> + Send) -> PyResult<T> {
    py.detach(|| catch_unwind(AssertUnwindSafe(work)))
        .unwrap_or_else(|_| Err(panicked()))
}

/// Works on a thread of its own, while this one leaves the interpreter to others and looks for Ctrl-C. Then `stop` is set, and the end
/// of the work waited for; work that no flag stops is left to itself.
pub fn interruptible<T: Send + 'static>(
    py: Python<'_>,
    stop: Option<Arc<AtomicBool>>,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> PyResult<T> {
    let (sender, mut receiver) = sync_channel(1);
    let thread = std::thread::Builder::new().name("planish-call".to_owned());
    thread.spawn(move || {
        // Nobody may wait any more.
        let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
    })?;
    let mut interrupt = None;
    loop {
        let received = py.detach(move || {
            let received = receiver.recv_timeout(LOOK);
            (received, receiver)
        });
        receiver = received.1;
        match received.0 {
            Ok(_) | Err(RecvTimeoutError::Disconnected) if interrupt.is_some() => {
                return Err(interrupt.unwrap_or_else(panicked));
            }
            Ok(Ok(result)) => return result.map_err(|error| raised(py, &error)),
            Ok(Err(_)) | Err(RecvTimeoutError::Disconnected) => return Err(panicked()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt.is_none()
            && let Err(signal) = py.check_signals()
        {
            match &stop {
                Some(stop) => stop.store(true, Ordering::Relaxed),
                None => return Err(signal),
            }
            interrupt = Some(signal);
        }
    }
}
