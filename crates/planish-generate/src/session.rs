//! From a prompt's tokens to an answer's: prefill, then one token at a time until a stop rule holds.
//!
//! A session keeps the key-value cache of what it has computed, so that a prompt that begins as the last one and its answer
//! did, as the next turn of a conversation does, costs only its new tokens.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use planish_model::{Cache, Model, NextInput};

use crate::{Error, GenerationPlan, Sampler};

/// Prompt tokens computed at once: enough for full speed, few enough to react to an interruption.
const PREFILL_TOKENS: usize = 512;

/// A model's memory of one sequence.
pub struct Session {
    cache: Cache,
    /// The tokens in the cache. // (positions)
    tokens: Vec<u32>,
}

/// What happens while a session generates. The receiver may break off at any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many tokens of the prompt are computed.
    Prefill {
        /// Tokens computed or found in the cache.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// The next token of the answer; the one that ends it is not reported.
    Token(u32),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model chose an end token.
    EndToken,
    /// `max_new_tokens` are there.
    MaxNewTokens,
    /// The model's context is full.
    ContextFull,
    /// The receiver of the steps broke off.
    Interrupted,
}

/// An answer and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The tokens, without the end token.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens whose keys and values were still in the cache.
    pub reused_tokens: usize,
    /// Time for the prompt's other tokens.
    pub prefill: Duration,
    /// Time for the answer after its first token.
    pub decode: Duration,
}

impl Answer {
    /// Prompt tokens computed per second.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        (self.prompt_tokens - self.reused_tokens) as f64 / self.prefill.as_secs_f64().max(1e-9)
    }

    /// Tokens of the answer per second, the first left out: it comes with the prompt. 0 if there was no second.
    pub fn decode_tokens_per_s(&self) -> f64 {
        let later = self.tokens.len().saturating_sub(1);
        later as f64 / self.decode.as_secs_f64().max(1e-9)
    }
}

/// An answer on its way.
struct Run<'a> {
    model: &'a mut Model,
    plan: &'a GenerationPlan,
    sampler: Sampler,
    start: Instant,
    answer: Answer,
    on_step: &'a mut dyn FnMut(Step) -> ControlFlow<()>,
}

impl Run<'_> {
    /// Why there can be no further token when `positions` are in the cache or about to be.
    fn is_full(&self, positions: usize, cache: &Cache) -> Option<Finish> {
        self.is_full_at(self.answer.tokens.len(), positions, cache)
    }

    /// As [`Run::is_full`], once the token that is on its way is there.
    fn is_full_after_next(&self, positions: usize, cache: &Cache) -> Option<Finish> {
        self.is_full_at(self.answer.tokens.len() + 1, positions, cache)
    }

    fn is_full_at(&self, tokens: usize, positions: usize, cache: &Cache) -> Option<Finish> {
        if tokens >= self.plan.max_new_tokens {
            return Some(Finish::MaxNewTokens);
        }
        (positions > cache.capacity()).then_some(Finish::ContextFull)
    }

    /// Begins a step on the device.
    fn choose(&mut self, input: NextInput<'_>, cache: &mut Cache) -> Result<(), Error> {
        let choice = self.sampler.choice().expect("asked of choices without a penalty only");
        Ok(self.model.choose(input, cache, choice)?)
    }

    /// Takes up a token; says why it is the last, if it is.
    fn add(&mut self, token: u32) -> Option<Finish> {
        if self.answer.tokens.is_empty() {
            self.answer.prefill = self.start.elapsed();
        }
        self.answer.decode = self.start.elapsed() - self.answer.prefill;
        if self.plan.eos_token_id.contains(&token) {
            return Some(Finish::EndToken);
        }
        self.answer.tokens.push(token);
        (self.on_step)(Step::Token(token))
            .is_break()
            .then_some(Finish::Interrupted)
    }
}

impl Session {
    /// An empty session for this model, for as many positions as the model's context holds.
    ///
    /// # Errors
    /// When the device is out of memory.
    pub fn new(model: &Model) -> Result<Session, Error> {
        let cache = model.cache(model.architecture().context)?;
        Ok(Session {
            cache,
            tokens: Vec::new(),
        })
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.cache.truncate(0);
        self.tokens.clear();
    }

    /// Continues `prompt` by the plan, reporting each step.
    ///
    /// # Errors
    /// A prompt that is empty or leaves no room in the context, a token that the model does not know, or a failing model.
    pub fn generate(
        &mut self,
        model: &mut Model,
        prompt: &[u32],
        plan: &GenerationPlan,
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        self.check(model, prompt)?;
        let start = Instant::now();
        let reused_tokens = self.keep_common(model, prompt);
        let mut answer = Answer {
            tokens: Vec::new(),
            finish: Finish::Interrupted,
            prompt_tokens: prompt.len(),
            reused_tokens,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        };
        if self.prefill(model, prompt, on_step)?.is_break() {
            answer.prefill = start.elapsed();
            return Ok(answer);
        }
        let sampler = Sampler::new(plan.sampling.clone());
        let mut run = Run {
            model,
            plan,
            sampler,
            start,
            answer,
            on_step,
        };
        let input = &prompt[self.tokens.len()..];
        let finish = match run.model.chooses() {
            true if plan.sampling.repetition_penalty == 1.0 => self.continue_ahead(&mut run, input)?,
            _ => self.continue_step_by_step(&mut run, prompt)?,
        };
        Ok(Answer { finish, ..run.answer })
    }

    /// Each token is chosen here, from its logits.
    fn continue_step_by_step(&mut self, run: &mut Run<'_>, prompt: &[u32]) -> Result<Finish, Error> {
        let mut seen = prompt.to_vec();
        let mut input = prompt[self.tokens.len()..].to_vec();
        loop {
            if let Some(finish) = run.is_full(self.tokens.len() + input.len(), &self.cache) {
                return Ok(finish);
            }
            let logits = run.model.forward(&input, &mut self.cache)?;
            self.tokens.append(&mut input);
            let token = run.sampler.choose(logits, &seen)?;
            if let Some(finish) = run.add(token) {
                return Ok(finish);
            }
            seen.push(token);
            input.push(token);
        }
    }

    /// The device chooses each token and goes on with it before it is known here.
    fn continue_ahead(&mut self, run: &mut Run<'_>, input: &[u32]) -> Result<Finish, Error> {
        if let Some(finish) = run.is_full(self.tokens.len() + input.len(), &self.cache) {
            return Ok(finish);
        }
        // A state that cannot go back must not see the token after the last.
        let may_run_ahead = self.cache.rewinds();
        run.choose(NextInput::Tokens(input), &mut self.cache)?;
        self.tokens.extend_from_slice(input);
        loop {
            let full = run.is_full_after_next(self.tokens.len() + 1, &self.cache);
            let ahead = may_run_ahead && full.is_none();
            if ahead {
                run.choose(NextInput::Chosen, &mut self.cache)?;
            }
            let token = run.model.take()?;
            let finish = token.and_then(|token| run.add(token));
            if ahead && (finish.is_some() || token.is_none()) {
                run.model.take()?;
                self.cache.truncate(self.tokens.len());
            }
            let token = token.ok_or(Error::NoFiniteLogit)?;
            if let Some(finish) = finish.or(full) {
                return Ok(finish);
            }
            if !ahead {
                run.choose(NextInput::Chosen, &mut self.cache)?;
            }
            self.tokens.push(token);
        }
    }

    fn check(&self, model: &Model, prompt: &[u32]) -> Result<(), Error> {
        if prompt.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let vocabulary = model.architecture().vocabulary;
        if let Some(&token) = prompt.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::UnknownToken { token, vocabulary });
        }
        let context = self.cache.capacity();
        if prompt.len() > context {
            return Err(Error::ContextFull {
                prompt: prompt.len(),
                context,
            });
        }
        Ok(())
    }

    /// Cuts the cache back to what it shares with `prompt`, its last token left out: that one's logits are needed. Nothing is
    /// left of it where the model's state cannot go back, or where positions of a prompt of this length are encoded otherwise.
    fn keep_common(&mut self, model: &Model, prompt: &[u32]) -> usize {
        let shared = self.tokens.iter().zip(prompt).take_while(|(old, new)| old == new);
        let common = shared.count().min(prompt.len() - 1);
        self.cache.truncate(common);
        let kept = model.expect(&mut self.cache, prompt.len());
        self.tokens.truncate(kept);
        kept
    }

    /// Computes the prompt up to its last piece, whose logits the first choice needs.
    fn prefill(
        &mut self,
        model: &mut Model,
        prompt: &[u32],
        on_step: &mut dyn FnMut(Step) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Error> {
        while prompt.len() - self.tokens.len() > PREFILL_TOKENS {
            let done = self.tokens.len();
            let piece = &prompt[done..done + PREFILL_TOKENS];
            model.append(piece, &mut self.cache)?;
            self.tokens.extend_from_slice(piece);
            let step = Step::Prefill {
                done: self.tokens.len(),
                total: prompt.len(),
            };
            if on_step(step).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }
}
