//! What all requests share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use planish::Engine;
use tokio::sync::watch;

use crate::ServerOptions;
use crate::metrics::Metrics;

pub(crate) struct State {
    pub engine: Engine,
    pub options: ServerOptions,
    pub metrics: Metrics,
    /// Seconds since 1970.
    pub started: u64,
    requests: AtomicU64,
    calls: AtomicU64,
    is_cut: watch::Sender<bool>,
}

impl State {
    pub(crate) fn new(engine: Engine, options: ServerOptions) -> State {
        State {
            engine,
            options,
            metrics: Metrics::default(),
            started: now(),
            requests: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            is_cut: watch::Sender::new(false),
        }
    }

    /// Cuts all answers where they are. Their clients are told at once, however long the engine's pass takes.
    pub(crate) fn cut(&self) {
        self.engine.stop();
        self.is_cut.send_replace(true);
    }

    /// Ends when answers are cut.
    pub(crate) async fn is_cut(&self) {
        // The sender lives as long as this state.
        let _ = self.is_cut.subscribe().wait_for(|is_cut| *is_cut).await;
    }

    /// A name that no other request of this server has.
    pub(crate) fn id(&self, prefix: &str) -> String {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        format!("{prefix}-{:08x}{number:08x}", self.started)
    }

    /// The same for a call of a tool: nine letters and digits, as the templates of Mistral's models want it.
    pub(crate) fn call_id(&self) -> String {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut number = self.started.wrapping_mul(1 << 24) | self.calls.fetch_add(1, Ordering::Relaxed);
        let digit = |_| {
            let digit = DIGITS[(number % 36) as usize];
            number /= 36;
            char::from(digit)
        };
        (0..9).map(digit).collect()
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}
