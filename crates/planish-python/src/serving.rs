//! A model over HTTP, until Ctrl-C.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};

use planish::{Engine, EngineOptions};
use planish_server::ServerOptions;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::errors::{LOOK, panicked, wrong_value};
use crate::model::Model;

/// Who may ask, and how much, by the names of `planish.serve`.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct ServeArguments {
    host: String,
    port: u16,
    model_name: String,
    api_key: Option<String>,
    open: bool,
    parallel: Option<usize>,
    queue: usize,
    on_listen: Option<Py<PyAny>>,
}

#[pyfunction]
fn serve(py: Python<'_>, model: &Model, arguments: ServeArguments) -> PyResult<()> {
    let host: IpAddr = arguments
        .host
        .parse()
        .map_err(|_| wrong_value("host", "an IP address", &arguments.host))?;
    if arguments.queue == 0 || arguments.parallel == Some(0) {
        return Err(PyValueError::new_err("queue and parallel are at least 1"));
    }
    let options = ServerOptions {
        address: SocketAddr::new(host, arguments.port),
        model: arguments.model_name,
        api_key: arguments.api_key,
        open: arguments.open,
        ..ServerOptions::default()
    };
    let engine = EngineOptions {
        answers: arguments.parallel,
        queue: arguments.queue,
        ..EngineOptions::default()
    };
    let (model, on_listen) = (model.causal_lm()?, arguments.on_listen);
    let stop = Arc::new(AtomicBool::new(false));
    let ends = Arc::clone(&stop);
    let (sender, mut receiver) = sync_channel(1);
    let thread = std::thread::Builder::new().name("planish-server".to_owned());
    thread.spawn(move || {
        let listening = move |address: SocketAddr| {
            if let Some(on_listen) = on_listen {
                Python::attach(|py| {
                    let told = on_listen.call1(py, (format!("http://{address}"),));
                    if let Err(error) = told {
                        error.write_unraisable(py, None);
                    }
                });
            }
        };
        let engine = Engine::start(&model, engine);
        let served = planish_server::serve(engine, options, listening, move || ends.load(Ordering::Relaxed));
        let _ = sender.send(served);
    })?;
    let mut interrupt = None;
    loop {
        let received = py.detach(move || {
            let received = receiver.recv_timeout(LOOK);
            (received, receiver)
        });
        receiver = received.1;
        match received.0 {
            Ok(Ok(())) => return interrupt.map_or(Ok(()), Err),
            Ok(Err(error @ planish_server::Error::Listen { .. })) => return Err(PyOSError::new_err(error.to_string())),
            Ok(Err(error)) => return Err(PyValueError::new_err(error.to_string())),
            Err(RecvTimeoutError::Disconnected) => return Err(panicked()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        if interrupt.is_none()
            && let Err(signal) = py.check_signals()
        {
            stop.store(true, Ordering::Relaxed);
            interrupt = Some(signal);
        }
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(serve, module)?)
}
