//! Numbers in Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use planish::EngineStatus;

/// Paths that are counted under their own names.
const ROUTES: [&str; 11] = [
    "/v1/chat/completions",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
    "/v1/completions",
    "/v1/models",
    "/v1/tokenize",
    "/v1/detokenize",
    "/health",
    "/metrics",
    "/",
];

/// What the server counts besides the engine.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    pub first_token: Histogram,
    pub request: Histogram,
}

/// Upper bounds of a histogram's buckets, in seconds.
const BOUNDS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// How often something took how long.
#[derive(Default)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BOUNDS.len()],
    count: AtomicU64,
    microseconds: AtomicU64,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let bucket = BOUNDS.iter().position(|&bound| time.as_secs_f64() <= bound);
        if let Some(bucket) = bucket {
            self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        self.microseconds.fetch_add(time.as_micros() as u64, Ordering::Relaxed);
    }

    fn write(&self, name: &str, text: &mut String) {
        let mut sum = 0;
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            sum += bucket.load(Ordering::Relaxed);
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {sum}");
        }
        let count = self.count.load(Ordering::Relaxed);
        let seconds = self.microseconds.load(Ordering::Relaxed) as f64 / 1e6;
        let _ = writeln!(
            text,
            "{name}_bucket{{le=\"+Inf\"}} {count}\n{name}_sum {seconds}\n{name}_count {count}"
        );
    }
}

impl Metrics {
    /// An answer to a request.
    pub(crate) fn count(&self, path: &str, status: StatusCode) {
        let route = ROUTES.into_iter().find(|route| *route == path).unwrap_or("other");
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status.as_u16())).or_default() += 1;
    }

    pub(crate) fn text(&self, status: &EngineStatus) -> String {
        let mut text = String::new();
        let gauges = [
            ("planish_requests_running", status.running as u64),
            ("planish_requests_waiting", status.waiting as u64),
            ("planish_cache_used_bytes", status.cache_bytes),
            ("planish_cache_limit_bytes", status.cache_limit),
        ];
        let counters = [
            ("planish_prompt_tokens_total", status.prompt_tokens),
            ("planish_prompt_tokens_cached_total", status.cached_tokens),
            ("planish_generation_tokens_total", status.generated_tokens),
            ("planish_passes_total", status.passes),
            ("planish_preemptions_total", status.pauses),
        ];
        for (kind, numbers) in [("gauge", &gauges[..]), ("counter", &counters[..])] {
            for (name, value) in numbers {
                let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
            }
        }
        let _ = writeln!(text, "# TYPE planish_requests_total counter");
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        for ((route, status), count) in requests.iter() {
            let _ = writeln!(
                text,
                "planish_requests_total{{route=\"{route}\",status=\"{status}\"}} {count}"
            );
        }
        self.first_token.write("planish_time_to_first_token_seconds", &mut text);
        self.request.write("planish_request_seconds", &mut text);
        text
    }
}
