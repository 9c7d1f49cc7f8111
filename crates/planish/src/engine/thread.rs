//! The engine's thread: does what the schedule says, and tells clients.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use planish_generate::{Answer, Batch, Finish, GenerationPlan, Member, Next, Session, Step};
use planish_model::Model;

use super::client::{Client, EngineEvent};
use super::job::Job;
use super::memory::{Costs, default_cache};
use super::prefixes::{Prefixes, begins, common};
use super::schedule::{Action, BLOCK, LEAST_PIECE, Load, piece};
use super::{EngineRequest, Shared};
use crate::told::Told;
use crate::{CausalLM, Error, TextAnswer};

/// Prompt tokens in a pass, at most.
const MOST_PIECE: usize = 512;
/// Tokens of a prompt between two states that are remembered, where states cannot go back.
const BETWEEN_STATES: usize = 1024;
/// Last tokens of a prompt that the next turn of a conversation may not have: those that open the answer.
const OPENING: usize = 8;
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
    costs: Costs,
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
        let (batch, costs) = (loaded.batch(), Costs::of(&loaded));
        let bytes = shared.options.cache_bytes.unwrap_or_else(|| default_cache(&loaded));
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
            limit: costs.positions(bytes).max(BLOCK),
            costs,
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
            Some((session, _)) => Some(session.known_tokens().len() + self.costs.state()),
            None => {
                let model = self.model.lock();
                let queue = self.shared.queue();
                let first = queue.waiting.front().map(|submitted| submitted.prompt.as_slice());
                first.and_then(|prompt| match self.source(prompt, &model) {
                    // Who will find its prompt read in a moment waits for that.
                    (Source::Soon, _) => None,
                    (_, shared) => Some(prompt.len() - shared + self.costs.state()),
                })
            }
        };
        let running = self.sessions().map(|session| (session, session.known_tokens().len()));
        let held = self.costs.stored(running);
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
        self.costs.stored(running.chain(kept))
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
        let (told, mut session) = match began {
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
        let mark = mark(&session, cached);
        mark.into_iter().for_each(|position| session.mark(position));
        let job = Job {
            number: self.begun,
            client,
            told,
            failure: None,
            gone: false,
            remembered: cached,
            mark,
        };
        self.begun += 1;
        self.jobs.push((self.batch.add(session), job));
    }

    /// A session that has begun to answer the prompt, with as much of it as is remembered.
    fn session(&mut self, prompt: &[u32], plan: &GenerationPlan) -> Result<Session, Error> {
        let model = &mut self.model.lock();
        let (source, _) = self.source(prompt, model);
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
    fn source(&self, prompt: &[u32], model: &Model) -> (Source, usize) {
        let kept = self.prefixes.best(prompt, model);
        let mut best = kept.map_or((0, Source::Nowhere), |(index, length)| {
            (length, Source::Kept(index, length))
        });
        for (member, job) in &self.jobs {
            let Some(session) = self.batch.get(*member) else {
                continue;
            };
            let now = common(session, prompt, model);
            if now > best.0 {
                best = (now, Source::Running(*member));
            }
            if !model.reads_alike(session.prompt_tokens(), prompt.len()) {
                continue;
            }
            let known = begins(session.known_tokens(), prompt);
            let marked = |mark: &usize| (session.tokens().len() + 1..=known).contains(mark);
            let soon = match session.can_go_back() {
                true => known,
                false => job.mark.filter(marked).unwrap_or(0),
            };
            if soon >= best.0 + BLOCK {
                best = (soon, Source::Soon);
            }
        }
        (best.1, best.0)
    }

    fn pass(&mut self) {
        let alone = self.jobs.len() < 2;
        let most = match alone {
            true => MOST_PIECE,
            // The first piece tells how long others take.
            false if self.prompt_tokens_per_s == 0.0 => LEAST_PIECE,
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
        if read >= LEAST_PIECE {
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
        let (mut tokens, mut read) = (0, Vec::new());
        let result = work(batch, &mut self.model.lock(), &mut |member, step| {
            tokens += u64::from(matches!(step, Step::Token(_)));
            if let Step::Prefill { done, .. } = step {
                read.push((member, done));
            }
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
        read.into_iter().for_each(|(member, done)| self.remember(member, done));
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

    /// States cannot go back: they are remembered near the end of a prompt for the next turn, and of a long one now and then, for others
    /// that begin alike.
    fn remember(&mut self, member: Member, done: usize) {
        let Some(session) = self.batch.get(member).filter(|session| !session.can_go_back()) else {
            return;
        };
        let Some((_, job)) = self.jobs.iter_mut().find(|(other, _)| *other == member) else {
            return;
        };
        if job.mark == Some(done) || done >= job.remembered + BETWEEN_STATES {
            job.remembered = done;
            // Without memory for it, nothing is remembered.
            if let Ok(snapshot) = session.fork(&mut self.model.lock()) {
                self.prefixes.keep(snapshot);
            }
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
        let bytes = self.costs.bytes(all.map(|session| (session, session.tokens().len())));
        store(&counts.running, self.jobs.len());
        store(&counts.paused, self.paused.len());
        store(&counts.cache_bytes, bytes);
        counts.last_pass.store(self.shared.milliseconds(), Ordering::Relaxed);
    }
}

/// Where a session that cannot go back, of whose prompt so much is remembered, is to be remembered before it answers: at the last
/// whole block that the next turn begins with.
fn mark(session: &Session, cached: usize) -> Option<usize> {
    let position = session.prompt_tokens().saturating_sub(OPENING) / BLOCK * BLOCK;
    (!session.can_go_back() && position > cached).then_some(position)
}

/// What a batch does with a model: a step, or to settle.
type Work = fn(
    &mut Batch<Session>,
    &mut Model,
    &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
) -> Result<(), planish_generate::Error>;
