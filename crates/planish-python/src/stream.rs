//! Answers on their way to Python: the engine's thread puts pieces into an inbox, and whoever wants them takes what is there.

use std::collections::VecDeque;
use std::io::Write;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use planish::{Client, EngineEvent, ErrorKind, Finish};
use pyo3::prelude::*;

use crate::errors::{LOOK, raised_as};
use crate::memory::peak_bytes;

/// A piece of an answer: what one token adds to it, or how it ended.
#[pyclass(frozen, get_all, module = "planish")]
#[derive(Clone)]
pub struct GenerationResponse {
    /// Which of the prompts it answers.
    index: usize,
    text: String,
    reasoning: String,
    token: Option<u32>,
    logprob: Option<f32>,
    top_logprobs: Option<Vec<(u32, f32)>>,
    prompt_tokens: usize,
    cached_tokens: usize,
    prompt_tps: f64,
    generation_tokens: usize,
    generation_tps: f64,
    peak_memory: f64,
    finish_reason: Option<&'static str>,
}

#[pymethods]
impl GenerationResponse {
    fn __repr__(&self) -> String {
        let finish = self
            .finish_reason
            .map_or("None".to_owned(), |reason| format!("{reason:?}"));
        let token = self.token.map_or("None".to_owned(), |token| token.to_string());
        format!(
            "GenerationResponse(text={:?}, token={token}, finish_reason={finish})",
            self.text
        )
    }
}

/// Why an answer ended, as OpenAI and mlx-lm call it.
fn reason(finish: Finish) -> &'static str {
    match finish {
        Finish::EndToken | Finish::StopString => "stop",
        Finish::MaxNewTokens | Finish::ContextFull => "length",
        Finish::MaxTime => "time",
        Finish::Interrupted => "interrupted",
    }
}

/// Why an answer cannot be given, or not to its end.
pub enum Failure {
    Library(ErrorKind, String),
    Python(PyErr),
}

#[derive(Default)]
struct Arrived {
    pieces: VecDeque<GenerationResponse>,
    failure: Option<Failure>,
    /// Answers that have ended.
    ended: usize,
}

/// What has come and was not taken.
#[derive(Default)]
pub struct Inbox {
    arrived: Mutex<Arrived>,
    changed: Condvar,
    /// Nobody wants more.
    closed: AtomicBool,
    /// Pieces are taken when all answers have ended: nobody is woken for one.
    quiet: bool,
    /// The other end of it becomes readable when something comes.
    bell: Mutex<Option<UnixStream>>,
}

impl Inbox {
    pub fn new(quiet: bool) -> Arc<Inbox> {
        Arc::new(Inbox {
            quiet,
            ..Inbox::default()
        })
    }

    fn arrived(&self) -> MutexGuard<'_, Arrived> {
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, put: impl FnOnce(&mut Arrived)) {
        let mut arrived = self.arrived();
        let before = (arrived.ended, arrived.failure.is_some());
        put(&mut arrived);
        let wakes = !self.quiet || before != (arrived.ended, arrived.failure.is_some());
        drop(arrived);
        if wakes {
            self.changed.notify_all();
            let bell = self.bell.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(mut bell) = bell.as_ref() {
                // One that is full rings already.
                let _ = bell.write_all(&[1]);
            }
        }
    }

    /// An answer failed: nothing more is expected of any.
    pub fn fail(&self, failure: Failure) {
        self.put(|arrived| {
            arrived.failure.get_or_insert(failure);
        });
    }
}

/// The engine's side, for one answer.
pub struct Sender {
    inbox: Arc<Inbox>,
    index: usize,
    text: String,
    reasoning: String,
    logprobs: Option<(f32, Vec<(u32, f32)>)>,
    /// Whether the likeliest tokens are wanted, too.
    tells_likeliest: bool,
    prompt: (usize, usize), // tokens, and how many of them were remembered
    begun: Instant,
    first: Option<(Instant, f64)>, // when the first token was there, and the rate of the prompt
    tokens: usize,
    ended: bool,
}

impl Sender {
    pub fn new(inbox: &Arc<Inbox>, index: usize, tells_likeliest: bool) -> Sender {
        Sender {
            inbox: Arc::clone(inbox),
            index,
            text: String::new(),
            reasoning: String::new(),
            logprobs: None,
            tells_likeliest,
            prompt: (0, 0),
            begun: Instant::now(),
            first: None,
            tokens: 0,
            ended: false,
        }
    }

    fn piece(&mut self, token: Option<u32>, finish: Option<Finish>) -> GenerationResponse {
        let now = Instant::now();
        if token.is_some() {
            self.tokens += 1;
        }
        let (prompt, cached) = self.prompt;
        let begun = self.begun;
        let (first, prompt_tps) = *self.first.get_or_insert_with(|| {
            let rate = (prompt - cached) as f64 / (now - begun).as_secs_f64().max(1e-9);
            (now, rate)
        });
        let later = self.tokens.saturating_sub(1) as f64;
        let likely = self.logprobs.take();
        GenerationResponse {
            index: self.index,
            text: std::mem::take(&mut self.text),
            reasoning: std::mem::take(&mut self.reasoning),
            token,
            logprob: likely.as_ref().map(|(logprob, _)| *logprob),
            top_logprobs: likely.map(|(_, likeliest)| likeliest).filter(|_| self.tells_likeliest),
            prompt_tokens: prompt,
            cached_tokens: cached,
            prompt_tps,
            generation_tokens: self.tokens,
            generation_tps: later / (now - first).as_secs_f64().max(1e-9),
            peak_memory: peak_bytes() as f64 / 1e9,
            finish_reason: finish.map(reason),
        }
    }
}

impl Client for Sender {
    fn on_event(&mut self, event: EngineEvent<'_>) -> ControlFlow<()> {
        match event {
            EngineEvent::Begun {
                prompt_tokens,
                cached_tokens,
            } => {
                self.prompt = (prompt_tokens, cached_tokens);
                self.begun = Instant::now();
            }
            EngineEvent::Logprobs(logprobs) => {
                self.logprobs = Some((logprobs.logprob, logprobs.likeliest.clone()));
            }
            EngineEvent::Text(text) => self.text.push_str(text),
            EngineEvent::Reasoning(text) => self.reasoning.push_str(text),
            // Nobody asks for calls here.
            EngineEvent::Call(_) | EngineEvent::Arguments(_) => {}
            EngineEvent::Token(token) => {
                let piece = self.piece(Some(token), None);
                self.inbox.put(|arrived| arrived.pieces.push_back(piece));
            }
            EngineEvent::Finished(answer) => {
                let piece = self.piece(None, Some(answer.answer.finish));
                self.ended = true;
                self.inbox.put(|arrived| {
                    arrived.pieces.push_back(piece);
                    arrived.ended += 1;
                });
            }
            EngineEvent::Failed(error) => {
                self.ended = true;
                self.inbox.fail(Failure::Library(error.kind(), error.to_string()));
            }
        }
        match self.is_gone() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn is_gone(&self) -> bool {
        self.inbox.closed.load(Ordering::Relaxed)
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.ended && !self.is_gone() {
            let what = "the engine ended without an answer";
            self.inbox.fail(Failure::Library(ErrorKind::Device, what.to_owned()));
        }
    }
}

/// Answers that are on their way.
#[pyclass(frozen, module = "planish")]
pub struct Stream {
    inbox: Arc<Inbox>,
    answers: usize,
    ear: Option<UnixStream>,
}

impl Stream {
    /// Of so many answers. One that rings can be waited for by its file descriptor.
    pub fn new(inbox: Arc<Inbox>, answers: usize, rings: bool) -> PyResult<Stream> {
        let mut ear = None;
        if rings {
            let (here, there) = UnixStream::pair()?;
            here.set_nonblocking(true)?;
            there.set_nonblocking(true)?;
            *inbox.bell.lock().unwrap_or_else(PoisonError::into_inner) = Some(there);
            ear = Some(here);
        }
        Ok(Stream { inbox, answers, ear })
    }

    /// Takes what is there; `None` after the end.
    fn take(&self, py: Python<'_>) -> PyResult<Option<Vec<GenerationResponse>>> {
        let mut arrived = self.inbox.arrived();
        let pieces: Vec<GenerationResponse> = arrived.pieces.drain(..).collect();
        if !pieces.is_empty() {
            return Ok(Some(pieces));
        }
        if let Some(failure) = arrived.failure.take() {
            arrived.ended = self.answers;
            drop(arrived);
            self.close();
            return Err(match failure {
                Failure::Library(kind, text) => raised_as(py, kind, text),
                Failure::Python(error) => error,
            });
        }
        let ended = arrived.ended >= self.answers || self.inbox.closed.load(Ordering::Relaxed);
        Ok((!ended).then(Vec::new))
    }

    /// Whether there is something to be taken.
    fn is_ready(&self, arrived: &Arrived) -> bool {
        let ended = arrived.ended >= self.answers || arrived.failure.is_some();
        ended || self.inbox.closed.load(Ordering::Relaxed) || (!self.inbox.quiet && !arrived.pieces.is_empty())
    }
}

#[pymethods]
impl Stream {
    /// Waits for pieces; `None` after the end.
    fn next(&self, py: Python<'_>) -> PyResult<Option<Vec<GenerationResponse>>> {
        loop {
            let ready = py.detach(|| {
                let arrived = self.inbox.arrived();
                let waits = |arrived: &mut Arrived| !self.is_ready(arrived);
                let waited = self.inbox.changed.wait_timeout_while(arrived, LOOK, waits);
                let (arrived, _) = waited.unwrap_or_else(PoisonError::into_inner);
                self.is_ready(&arrived)
            });
            if let Err(signal) = py.check_signals() {
                self.close();
                return Err(signal);
            }
            if ready {
                return self.take(py);
            }
        }
    }

    /// Takes what is there, perhaps nothing; `None` after the end.
    fn next_now(&self, py: Python<'_>) -> PyResult<Option<Vec<GenerationResponse>>> {
        if let Some(mut ear) = self.ear.as_ref() {
            let mut rung = [0; 64];
            while matches!(std::io::Read::read(&mut ear, &mut rung), Ok(64)) {}
        }
        self.take(py)
    }

    /// Readable when something comes.
    fn fileno(&self) -> Option<i32> {
        self.ear.as_ref().map(AsRawFd::as_raw_fd)
    }

    /// Ends the answers.
    fn close(&self) {
        self.inbox.closed.store(true, Ordering::Relaxed);
        self.inbox.changed.notify_all();
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.close();
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<GenerationResponse>()?;
    module.add_class::<Stream>()
}
