//! An engine: one thread that answers many clients on one model, pass by pass.
//!
//! Requests wait in a queue that is bounded. Answers that run take their tokens side by side; prompts are read in pieces between, each
//! so short that running answers do not wait long for it. What was computed is remembered for prompts that begin alike. When memory
//! is short, what is remembered goes first; then the youngest answers pause and are computed again later. What is done next is
//! decided in one place, `schedule`.

mod client;
mod job;
mod memory;
mod prefixes;
mod schedule;
mod thread;
mod weighed;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

pub use client::{Client, EngineEvent};
use thread::Submitted;
pub use weighed::Weigh;

use crate::{CausalLM, Error, Request};

/// How much an engine takes on.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// Answers side by side, at most. Default: as many as the model likes to give at a time.
    pub answers: Option<usize>,
    /// Requests that wait, at most.
    pub queue: usize,
    /// Bytes of what sequences remember, running and finished ones together; what several share counts once. An answer that is alone
    /// may take more. Default: of the memory that is free when the engine starts, a quarter on the processor, all but a tenth on a GPU.
    pub cache_bytes: Option<u64>,
    /// How long a running answer may wait for a piece of somebody's prompt.
    pub longest_wait: Duration,
}

impl Default for EngineOptions {
    fn default() -> EngineOptions {
        EngineOptions {
            answers: None,
            queue: 256,
            cache_bytes: None,
            longest_wait: Duration::from_millis(100),
        }
    }
}

/// An answer that is asked for.
pub struct EngineRequest {
    /// The prompt and how to answer.
    pub request: Request,
    /// Whether the answer goes on with the text of the prompt, as with [`Session::continue_text`](crate::Session::continue_text).
    pub continues: bool,
    /// Who is told.
    pub client: Box<dyn Client>,
}

/// Why requests are not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A request that cannot be answered.
    #[error(transparent)]
    Request(#[from] Error),
    /// The queue is full.
    #[error("{waiting} requests wait already: try again later")]
    Busy {
        /// Requests in the queue.
        waiting: usize,
    },
    /// The engine takes nothing new.
    #[error("no more requests are taken")]
    Closed,
}

/// What an engine does and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Answers on their way.
    pub running: usize,
    /// Requests that wait, paused answers too.
    pub waiting: usize,
    /// Tokens of prompts that were to be read.
    pub prompt_tokens: u64,
    /// Of these, tokens that were remembered.
    pub cached_tokens: u64,
    /// Tokens of answers.
    pub generated_tokens: u64,
    /// Passes so far.
    pub passes: u64,
    /// Answers that paused for want of memory.
    pub pauses: u64,
    /// Bytes of what is remembered now; what several sequences share counts once.
    pub cache_bytes: u64,
    /// Bytes that may be remembered.
    pub cache_limit: u64,
    /// How long ago the last pass ended, while work waits; zero while none does.
    pub stuck: Duration,
}

/// Answers many clients on one model. Dropped, it ends all answers where they are.
pub struct Engine {
    shared: Arc<Shared>,
    model: CausalLM,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and those who submit share.
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
    /// All answers end at once.
    stopped: AtomicBool,
    counts: Counts,
    started: Instant,
    options: EngineOptions,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Submitted>,
    /// Nothing new is taken.
    closed: bool,
}

/// Numbers that the thread writes and anybody reads.
#[derive(Default)]
struct Counts {
    running: AtomicU64,
    paused: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    generated_tokens: AtomicU64,
    passes: AtomicU64,
    pauses: AtomicU64,
    cache_bytes: AtomicU64,
    cache_limit: AtomicU64,
    /// Milliseconds after the start.
    last_pass: AtomicU64,
}

impl Shared {
    /// A panic of a client leaves the queue usable.
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn milliseconds(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Panics
    /// Without an answer at a time or a place in the queue; if the system has no thread left.
    pub fn start(model: &CausalLM, options: EngineOptions) -> Engine {
        assert!(options.queue > 0 && options.answers != Some(0));
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            changed: Condvar::new(),
            stopped: AtomicBool::new(false),
            counts: Counts::default(),
            started: Instant::now(),
            options,
        });
        let (own, its_model) = (Arc::clone(&shared), model.clone());
        let thread = std::thread::Builder::new()
            .name("planish-engine".to_owned())
            .spawn(move || thread::run(&own, &its_model));
        Engine {
            shared,
            model: model.clone(),
            thread: Some(thread.expect("a thread")),
        }
    }

    /// Takes requests to be answered, all or none, in this order. Each client is told of its own answer, from the engine's thread:
    /// it must not wait there. Requests with the same prompt read it once.
    ///
    /// # Errors
    /// A request that [`CausalLM::check`] refuses; a queue without room for all, unless nothing waits; an engine that is closed.
    pub fn submit(&self, requests: Vec<EngineRequest>) -> Result<(), Refusal> {
        let submitted = requests.into_iter().map(|request| {
            let plan = self.model.check(&request.request)?;
            Ok(Submitted::new(request, plan))
        });
        let submitted: Vec<Submitted> = submitted.collect::<Result<_, Error>>()?;
        let mut queue = self.shared.queue();
        if queue.closed {
            return Err(Refusal::Closed);
        }
        let waiting = queue.waiting.len();
        if waiting > 0 && waiting + submitted.len() > self.shared.options.queue {
            return Err(Refusal::Busy { waiting });
        }
        if waiting == 0 && self.status_of(0).running == 0 {
            // The first after a pause: it is not the pause's fault if this one gets stuck.
            self.shared
                .counts
                .last_pass
                .store(self.shared.milliseconds(), Ordering::Relaxed);
        }
        queue.waiting.extend(submitted);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// What the engine does now. Never waits for a pass.
    pub fn status(&self) -> EngineStatus {
        let waiting = self.shared.queue().waiting.len();
        self.status_of(waiting)
    }

    fn status_of(&self, waiting: usize) -> EngineStatus {
        let counts = &self.shared.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let (running, waiting) = (of(&counts.running) as usize, waiting + of(&counts.paused) as usize);
        let since = self.shared.milliseconds().saturating_sub(of(&counts.last_pass));
        EngineStatus {
            running,
            waiting,
            prompt_tokens: of(&counts.prompt_tokens),
            cached_tokens: of(&counts.cached_tokens),
            generated_tokens: of(&counts.generated_tokens),
            passes: of(&counts.passes),
            pauses: of(&counts.pauses),
            cache_bytes: of(&counts.cache_bytes),
            cache_limit: of(&counts.cache_limit),
            stuck: match running + waiting {
                0 => Duration::ZERO,
                _ => Duration::from_millis(since),
            },
        }
    }

    /// The model.
    pub fn model(&self) -> &CausalLM {
        &self.model
    }

    /// Whether nothing new is taken.
    pub fn is_closed(&self) -> bool {
        self.shared.queue().closed
    }

    /// Takes nothing new from now on; what was taken is answered.
    pub fn close(&self) {
        self.shared.queue().closed = true;
        self.shared.changed.notify_all();
    }

    /// Ends all answers where they are, those that wait too, and takes nothing new.
    pub fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        self.close();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop();
        if let Some(thread) = self.thread.take() {
            // A panic was reported when it came.
            let _ = thread.join();
        }
    }
}
