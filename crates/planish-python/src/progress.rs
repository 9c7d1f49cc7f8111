//! Progress for Python: a callable gets `(done, total, what)`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use planish::{Download, Progress};
use pyo3::prelude::*;

/// Who is told. What a callable raises ends the work where it can, and is raised after it.
#[derive(Clone)]
pub struct Listener {
    shared: Arc<Shared>,
}

struct Shared {
    callable: Option<Py<PyAny>>,
    raised: Mutex<Option<PyErr>>,
    stop: Arc<AtomicBool>,
    /// Of a download: bytes, of how many, of which file.
    file: Mutex<(u64, u64, String)>,
}

impl Listener {
    pub fn new(callable: Option<Py<PyAny>>) -> Listener {
        Listener {
            shared: Arc::new(Shared {
                callable,
                raised: Mutex::new(None),
                stop: Arc::default(),
                file: Mutex::default(),
            }),
        }
    }

    /// Set when the work is to end.
    pub fn stop(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.shared.stop)
    }

    pub fn tell(&self, done: u64, total: u64, what: &str) {
        let Some(callable) = &self.shared.callable else { return };
        if self.shared.stop.load(Ordering::Relaxed) {
            return;
        }
        Python::attach(|py| {
            if let Err(error) = callable.call1(py, (done, total, what)) {
                self.shared.stop.store(true, Ordering::Relaxed);
                let mut raised = self.shared.raised.lock().unwrap_or_else(PoisonError::into_inner);
                raised.get_or_insert(error);
            }
        });
    }

    pub fn conversion(&self, progress: Progress<'_>) {
        self.tell(progress.done_bytes, progress.total_bytes, progress.tensor);
    }

    pub fn download(&self, step: Download<'_>) {
        let mut file = self.shared.file.lock().unwrap_or_else(PoisonError::into_inner);
        match step {
            Download::Start {
                file: name,
                total_bytes,
                done_bytes,
            } => *file = (done_bytes, total_bytes, name.to_owned()),
            Download::Received { bytes } => file.0 += bytes,
            Download::End => file.0 = file.1,
            Download::Notice(_) => return,
        }
        let (done, total, name) = file.clone();
        drop(file);
        self.tell(done, total, &name);
    }

    /// # Errors
    /// What the callable raised.
    pub fn check(&self) -> PyResult<()> {
        let raised = self.shared.raised.lock().unwrap_or_else(PoisonError::into_inner).take();
        raised.map_or(Ok(()), Err)
    }
}
