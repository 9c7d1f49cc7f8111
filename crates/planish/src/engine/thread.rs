//! The engine's thread: does what the schedule says, and tells clients.

use std::collections::{HashMap, VecDeque};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use planish_generate::{Answer, Batch, Finish, GenerationPlan, Member, Next, Session, Step};
use planish_model::Model;

use super::client::{Client, EngineEvent};
use super::prefixes::{Prefixes, common};
use super::schedule::{Action, BLOCK, Load, piece, room};
use super::{EngineRequest, Shared};
use crate::told::Told;
use crate::{CausalLM, Error, TextAnswer, TextStep};

/// Prompt tokens in a pass, at most.
const MOST_PIECE: usize = 512;
/// Bytes for what sequences remember, where nobody tells how much memory there is.
const UNKNOWN_CACHE: u64 = 2 << 30;
/// Share of the last pass in the rate at which prompts are read.
const NEWEST: f64 = 0.5;

/// A request that waits.
pub(super) struct Submitted {
    prompt: Vec<u32>,
    plan: GenerationPlan,
    continues: bool,
    client: Box<dyn Client>,
}

impl Submitted {
    pub(super) fn new(request: EngineRequest, plan: GenerationPlan) -> Submitted {
        Submitted {
            prompt: request.request.prompt,
            plan,
            continues: request.continues,
            client: request.client,
        }
    }
}

/// An answer that has begun.
struct Job<'a> {
    /// How many began before it.
    number: u64,
    client: Box<dyn Client>,
    told: Told<'a>,
    failure: Option<Error>,
    /// The client broke off.
    gone: bool,
}

impl Job<'_> {
    fn take(&mut self, step: Step<'_>) -> ControlFlow<()> {
        let (client, gone) = (&mut self.client, &mut self.gone);
        let token = match step {
            Step::Prefill { .. } => return ControlFlow::Continue(()),
            // Only of what the answer says.
            Step::Logprobs(logprobs) if self.told.is_in_answer() => {
                return tell_event(client, gone, EngineEvent::Logprobs(logprobs));
            }
            Step::Logprobs(_) => return ControlFlow::Continue(()),
            Step::Token(token) => token,
        };
        let flow = self.told.take(token, &mut |piece| tell(client, gone, piece));
        flow.unwrap_or_else(|error| {
            self.failure = Some(error);
            ControlFlow::Break(())
        })
    }

    /// The last event.
    fn finish(mut self, answer: Result<Answer, Error>) {
        if self.gone {
            return;
        }
        let (client, gone) = (&mut self.client, &mut self.gone);
        let answer = match self.failure {
            Some(error) => Err(error),
            None => answer.and_then(|answer| self.told.finish(answer, &mut |piece| tell(client, gone, piece))),
        };
        if !*gone {
            // Nothing follows that could be broken off.
            let _ = match &answer {
                Ok(answer) => client.on_event(EngineEvent::Finished(answer)),
                Err(error) => client.on_event(EngineEvent::Failed(error)),
            };
        }
    }
}

/// Tells a client who is there a piece of text that is not empty.
fn tell(client: &mut Box<dyn Client>, gone: &mut bool, piece: TextStep<'_>) -> ControlFlow<()> {
    let event = match piece {
        TextStep::Text("") | TextStep::Reasoning("") | TextStep::Prefill { .. } => return ControlFlow::Continue(()),
        TextStep::Text(text) => EngineEvent::Text(text),
        TextStep::Reasoning(text) => EngineEvent::Reasoning(text),
        TextStep::Call(name) => EngineEvent::Call(name),
        TextStep::Arguments(text) => EngineEvent::Arguments(text),
    };
    tell_event(client, gone, event)
}

fn tell_event(client: &mut Box<dyn Client>, gone: &mut bool, event: EngineEvent<'_>) -> ControlFlow<()> {
    if *gone {
        return ControlFlow::Break(());
    }
    let flow = client.on_event(event);
    *gone = flow.is_break();
    flow
}

/// Where the beginning of a prompt is remembered.
enum Source {
    Kept(usize, usize),
    Running(Member),
    /// A running answer reads it now.
    Soon,
    Nowhere,
}

struct Worker<'a> {
    shared: &'a Shared,
    model: &'a CausalLM,
    batch: Batch<Session>,
    jobs: Vec<(Member, Job<'a>)>,         // in the order of their members
    paused: VecDeque<(Session, Job<'a>)>, // the oldest first
    prefixes: Prefixes,
    begun: u64,
    answers: usize,
    limit: usize, // positions
    position_bytes: usize,
    /// At which prompts were read; 0 before the first.
    prompt_tokens_per_s: f64,
}

/// Works until the engine stops, or is closed and has answered everything.
pub(super) fn run(shared: &Shared, model: &CausalLM) {
    /// Nobody waits for a thread that is gone, whyever it went.
    struct Last<'a>(&'a Shared);
    impl Drop for Last<'_> {
        fn drop(&mut self) {
            let mut queue = self.0.queue();
            queue.closed = true;
            queue.waiting.clear();
        }
    }
    let _last = Last(shared);
    let mut worker = Worker::new(shared, model);
    while worker.turn() {}
}

impl<'a> Worker<'a> {
    fn new(shared: &'a Shared, model: &'a CausalLM) -> Worker<'a> {
        let loaded = model.lock();
        let (batch, position_bytes) = (loaded.batch(), loaded.position_bytes());
        let bytes = shared.options.cache_bytes.unwrap_or_else(|| default_cache(&loaded));
        let limit = (bytes / position_bytes.max(1) as u64).max(BLOCK as u64);
        shared.counts.cache_limit.store(bytes, Ordering::Relaxed);
        Worker {
            shared,
            model,
            batch: Batch::default(),
            jobs: Vec::new(),
            paused: VecDeque::new(),
            prefixes: Prefixes::default(),
            begun: 0,
            answers: shared.options.answers.unwrap_or(batch),
            limit: usize::try_from(limit).unwrap_or(usize::MAX),
            position_bytes,
            prompt_tokens_per_s: 0.0,
        }
    }

    /// One action. `false` once nothing is left to be done.
    fn turn(&mut self) -> bool {
        if self.shared.stopped.load(Ordering::Relaxed) {
            self.end_all();
            return false;
        }
        self.drop_gone();
        let load = self.load();
        match load.action() {
            Action::Forget => self.prefixes.forget(),
            Action::Pause => self.pause(),
            Action::Begin => self.begin(),
            Action::Pass => self.pass(),
            Action::Wait => {
                // The last client may have left just now, without a pass.
                self.count();
                return self.wait();
            }
        }
        self.count();
        true
    }

    fn load(&self) -> Load {
        let next = match self.paused.front() {
            // Nobody can begin: nothing is looked up while all places are taken.
            _ if self.jobs.len() >= self.answers => None,
            Some((session, _)) => Some(session.known_tokens().len()),
            None => {
                let queue = self.shared.queue();
                let first = queue.waiting.front().map(|submitted| submitted.prompt.as_slice());
                first.and_then(|prompt| match self.source(prompt) {
                    // Who will find its prompt read in a moment waits for that.
                    (Source::Soon, _) => None,
                    (_, shared) => Some(prompt.len() - shared),
                })
            }
        };
        let held = stored(self.sessions().map(|session| (session, session.known_tokens().len())));
        Load {
            limit: self.limit,
            answers: self.answers,
            running: self.jobs.len(),
            held,
            kept: self.prefixes.sessions().count(),
            more: self.stored() - held,
            next,
        }
    }

    /// Of the answers that run.
    fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.jobs.iter().filter_map(|(member, _)| self.batch.get(*member))
    }

    /// Positions that are held or will be in a moment.
    fn stored(&self) -> usize {
        let running = self.sessions().map(|session| (session, session.known_tokens().len()));
        let kept = self
            .prefixes
            .sessions()
            .map(|session| (session, session.tokens().len()));
        stored(running.chain(kept))
    }

    /// Whoever is gone waits and runs no more.
    fn drop_gone(&mut self) {
        self.shared
            .queue()
            .waiting
            .retain(|submitted| !submitted.client.is_gone());
        self.paused.retain(|(_, job)| !job.client.is_gone());
        let gone: Vec<Member> = self
            .jobs
            .iter()
            .filter(|(_, job)| job.client.is_gone())
            .map(|(member, _)| *member)
            .collect();
        for member in gone {
            self.jobs.retain(|(other, _)| *other != member);
            if let Some(session) = self.batch.remove(member) {
                self.prefixes.keep(session);
            }
        }
    }

    /// `false` if nothing will come any more.
    fn wait(&mut self) -> bool {
        let mut queue = self.shared.queue();
        if queue.waiting.is_empty() {
            if queue.closed {
                return false;
            }
            // Clients who leave while they wait are looked for now and then.
            let limit = Duration::from_secs(1);
            queue = match self.shared.changed.wait_timeout(queue, limit) {
                Ok((queue, _)) => queue,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
        drop(queue);
        true
    }

    /// The youngest answer gives its memory back.
    fn pause(&mut self) {
        self.work(Batch::settle);
        let Some(youngest) = (0..self.jobs.len()).max_by_key(|&index| self.jobs[index].1.number) else {
            return;
        };
        let (member, job) = self.jobs.remove(youngest);
        let Some(mut session) = self.batch.take_out(member) else {
            return;
        };
        session.suspend(&self.model.lock());
        let at = self.paused.partition_point(|(_, other)| other.number < job.number);
        self.paused.insert(at, (session, job));
        self.shared.counts.pauses.fetch_add(1, Ordering::Relaxed);
    }

    fn begin(&mut self) {
        if let Some((session, job)) = self.paused.pop_front() {
            self.jobs.push((self.batch.add(session), job));
            return;
        }
        let Some(submitted) = self.shared.queue().waiting.pop_front() else {
            return;
        };
        let Submitted {
            prompt,
            plan,
            continues,
            mut client,
        } = submitted;
        let context = if continues { prompt.as_slice() } else { &[] };
        let told = Told::new(self.model, &plan, context);
        let began = told.and_then(|told| Ok((told, self.session(&prompt, &plan)?)));
        let (told, session) = match began {
            Ok(began) => began,
            Err(error) => {
                let _ = client.on_event(EngineEvent::Failed(&error));
                return;
            }
        };
        let cached = session.tokens().len();
        let counts = &self.shared.counts;
        counts.prompt_tokens.fetch_add(prompt.len() as u64, Ordering::Relaxed);
        counts.cached_tokens.fetch_add(cached as u64, Ordering::Relaxed);
        let flow = client.on_event(EngineEvent::Begun {
            prompt_tokens: prompt.len(),
            cached_tokens: cached,
        });
        if flow.is_break() {
            return;
        }
        let job = Job {
            number: self.begun,
            client,
            told,
            failure: None,
            gone: false,
        };
        self.begun += 1;
        self.jobs.push((self.batch.add(session), job));
    }

    /// A session that has begun to answer the prompt, with as much of it as is remembered.
    fn session(&mut self, prompt: &[u32], plan: &GenerationPlan) -> Result<Session, Error> {
        let (source, _) = self.source(prompt);
        let model = &mut self.model.lock();
        let mut session = match source {
            Source::Kept(index, length) => match self.prefixes.take(index, length) {
                Some(session) => session,
                None => self.prefixes.touch(index).fork(model)?,
            },
            Source::Running(member) => match self.batch.get(member) {
                Some(session) => session.fork(model)?,
                None => Session::new(model),
            },
            Source::Soon | Source::Nowhere => Session::new(model),
        };
        session.begin(model, prompt, plan)?;
        Ok(session)
    }

    /// Where the prompt's beginning is, and how long that is.
    fn source(&self, prompt: &[u32]) -> (Source, usize) {
        let kept = self.prefixes.best(prompt);
        let mut best = kept.map_or((0, Source::Nowhere), |(index, length)| {
            (length, Source::Kept(index, length))
        });
        for (member, _) in &self.jobs {
            let Some(session) = self.batch.get(*member) else {
                continue;
            };
            let now = common(session, prompt);
            if now > best.0 {
                best = (now, Source::Running(*member));
            }
            if session.can_go_back() {
                let known = session.known_tokens().iter().zip(&prompt[..prompt.len() - 1]);
                let soon = known.take_while(|(known, token)| known == token).count();
                if soon >= best.0 + BLOCK {
                    best = (soon, Source::Soon);
                }
            }
        }
        (best.1, best.0)
    }

    fn pass(&mut self) {
        let alone = self.jobs.len() < 2;
        let most = match alone || self.prompt_tokens_per_s == 0.0 {
            true => MOST_PIECE,
            false => piece(
                self.prompt_tokens_per_s,
                self.shared.options.longest_wait.as_secs_f64(),
                MOST_PIECE,
            ),
        };
        self.batch.set_piece(most);
        let sessions = self.jobs.iter().filter_map(|(member, _)| self.batch.get(*member));
        let read = sessions.filter_map(|session| match session.next(false, most) {
            Some(Next::Prefill(count)) => Some(count),
            _ => None,
        });
        let read = read.max().unwrap_or(0);
        let start = Instant::now();
        self.work(Batch::step);
        if read >= BLOCK {
            let rate = read as f64 / start.elapsed().as_secs_f64();
            self.prompt_tokens_per_s = match self.prompt_tokens_per_s {
                0.0 => rate,
                before => before + NEWEST * (rate - before),
            };
        }
        self.shared.counts.passes.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets the batch work, tells clients of it, and parts with those whose answers are finished.
    fn work(&mut self, work: Work) {
        let Worker { batch, jobs, .. } = self;
        let mut tokens = 0;
        let result = work(batch, &mut self.model.lock(), &mut |member, step| {
            tokens += u64::from(matches!(step, Step::Token(_)));
            match jobs.binary_search_by_key(&member, |(member, _)| *member) {
                Ok(index) => jobs[index].1.take(step),
                Err(_) => ControlFlow::Break(()),
            }
        });
        self.shared.counts.generated_tokens.fetch_add(tokens, Ordering::Relaxed);
        if let Err(error) = result {
            self.fail(&error.into());
            return;
        }
        while let Some((member, mut session)) = self.batch.take_finished() {
            let answer = session.take_answer().map_err(Error::from);
            let Some(index) = self.jobs.iter().position(|(other, _)| *other == member) else {
                continue;
            };
            let (_, job) = self.jobs.remove(index);
            if answer.is_ok() {
                self.prefixes.keep(session);
            }
            job.finish(answer);
        }
    }

    /// The device failed: nobody's answer goes on, and nothing is remembered.
    fn fail(&mut self, error: &Error) {
        self.batch = Batch::default();
        self.prefixes.clear();
        for (_, mut job) in self.jobs.drain(..).filter(|(_, job)| !job.gone) {
            let _ = job.client.on_event(EngineEvent::Failed(error));
        }
    }

    /// The engine stops: everybody is told how far the answer came.
    fn end_all(&mut self) {
        self.batch.stop();
        while let Some((member, mut session)) = self.batch.take_finished() {
            let answer = session.take_answer().map_err(Error::from);
            if let Some(index) = self.jobs.iter().position(|(other, _)| *other == member) {
                self.jobs.remove(index).1.finish(answer);
            }
        }
        for (mut session, job) in self.paused.drain(..) {
            session.stop();
            job.finish(session.take_answer().map_err(Error::from));
        }
        let waiting = std::mem::take(&mut self.shared.queue().waiting);
        for mut submitted in waiting {
            let answer = TextAnswer {
                answer: Answer {
                    tokens: Vec::new(),
                    logprobs: Vec::new(),
                    finish: Finish::Interrupted,
                    prompt_tokens: submitted.prompt.len(),
                    reused_tokens: 0,
                    prefill: Duration::ZERO,
                    decode: Duration::ZERO,
                },
                text: String::new(),
                reasoning: String::new(),
                stop: None,
                reasoning_tokens: 0,
                calls: Vec::new(),
            };
            let _ = submitted.client.on_event(EngineEvent::Finished(&answer));
        }
        self.count();
    }

    fn count(&self) {
        let counts = &self.shared.counts;
        let store = |count: &AtomicU64, value: usize| count.store(value as u64, Ordering::Relaxed);
        let all = self.sessions().chain(self.prefixes.sessions());
        let positions = ranges(all.map(|session| (session, session.tokens().len())));
        let positions: usize = positions.values().map(Range::len).sum();
        store(&counts.running, self.jobs.len());
        store(&counts.paused, self.paused.len());
        store(&counts.cache_bytes, positions * self.position_bytes);
        counts.last_pass.store(self.shared.milliseconds(), Ordering::Relaxed);
    }
}

/// Positions by who computed them: those of a number from where they begin to the end of the longest.
fn ranges<'a>(sessions: impl Iterator<Item = (&'a Session, usize)>) -> HashMap<u64, Range<usize>> {
    let mut ranges: HashMap<u64, Range<usize>> = HashMap::new();
    for (session, length) in sessions {
        for (number, part) in session.lineage().parts(length) {
            let range = ranges.entry(number).or_insert(part.clone());
            range.end = range.end.max(part.end);
        }
    }
    ranges
}

/// Positions that memory is taken for: whole blocks, what sequences share once.
fn stored<'a>(sessions: impl Iterator<Item = (&'a Session, usize)>) -> usize {
    let ranges = ranges(sessions);
    // A block that is begun is of one sequence alone.
    ranges
        .values()
        .map(|range| room(range.end) - range.start / BLOCK * BLOCK)
        .sum()
}

/// Bytes for what sequences remember, where nobody says how many.
fn default_cache(model: &Model) -> u64 {
    let on_gpu = model.device_memory().is_some();
    match model.free_bytes() {
        Some(free) if on_gpu => free / 10 * 9,
        Some(free) => free / 4,
        None => UNKNOWN_CACHE,
    }
}

/// What a batch does with a model: a step, or to settle.
type Work = fn(
    &mut Batch<Session>,
    &mut Model,
    &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
) -> Result<(), planish_generate::Error>;
