//! One sequence as a state machine: it says which tokens it wants computed next and takes what was chosen, until a stop rule holds.
//! Whoever drives it puts the chunks of many sessions into one pass; [`crate::Batch`] does.
//!
//! A session keeps the cache of what it has computed, so that a prompt that begins as the last one and its answer did, as the
//! next turn of a conversation does, costs only its new tokens.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use planish_model::{Cache, Choice, Chunk, Input, LateChoice, Model, Want};

use crate::{Answer, Batch, Error, Finish, GenerationPlan, Lineage, Sampler, Step, TokenLogprobs};

/// Prompt tokens computed at once, unless a batch says otherwise: enough for full speed, few enough to react to an interruption.
pub(crate) const PREFILL_TOKENS: usize = 512;

/// A model's memory of one sequence, and the answer that is being given.
pub struct Session {
    cache: Cache,
    /// All tokens that are known. The cache holds the first of them; ahead of them, at most one that is not known yet. // (tokens)
    tokens: Vec<u32>,
    lineage: Lineage,
    /// Tokens of the prompt that was answered last: the first of those that are known.
    prompt: usize,
    /// Where a piece of the prompt ends.
    mark: Option<usize>,
    run: Option<Run>,
}

/// An answer on its way, or one that waits to be taken.
struct Run {
    plan: GenerationPlan,
    sampler: Sampler,
    start: Instant,
    answer: Answer,
    /// Tokens that are being chosen: 2 where the next pass began before the token of the last was known.
    expected: usize,
    /// How a token is chosen whose logits are on their way here.
    choice: Option<Choice>,
    /// Of the token that is being chosen, where it is asked how likely it is.
    logits: Vec<f32>,
    outcome: Option<Result<Finish, Error>>,
}

/// What a session wants of the next pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// So many tokens of the prompt.
    Prefill(usize),
    /// One token.
    Decode,
}

impl Run {
    /// Why no token follows `tokens` of the answer when `positions` would be in the cache for it.
    fn is_full(&self, tokens: usize, positions: usize, cache: &Cache) -> Option<Finish> {
        if tokens >= self.plan.max_new_tokens {
            return Some(Finish::MaxNewTokens);
        }
        (positions > cache.capacity()).then_some(Finish::ContextFull)
    }
}

impl Session {
    /// An empty session for this model, for as many positions as the model's context holds.
    pub fn new(model: &Model) -> Session {
        Session::with_capacity(model, model.architecture().context)
    }

    /// An empty session for at most `capacity` positions.
    pub fn with_capacity(model: &Model, capacity: usize) -> Session {
        Session {
            cache: model.cache(capacity),
            tokens: Vec::new(),
            lineage: Lineage::new(),
            prompt: 0,
            mark: None,
            run: None,
        }
    }

    /// Whether the last tokens alone can be forgotten; a model with states of fixed size forgets all or none.
    pub fn can_go_back(&self) -> bool {
        self.cache.can_truncate()
    }

    /// Lets a piece of the prompt end at a position before its end, so that the session can be forked there.
    pub fn mark(&mut self, position: usize) {
        self.mark = Some(position.min(self.prompt));
    }

    /// Tokens of the prompt that was answered last. Those of its answer, if any are remembered, come after them.
    pub fn prompt_tokens(&self) -> usize {
        self.prompt
    }

    /// All tokens of the prompt and the answer so far, computed or not.
    pub fn known_tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens in the cache.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens[..self.tokens.len().min(self.cache.len())]
    }

    /// Forgets everything, an answer on its way too.
    pub fn clear(&mut self) {
        self.run = None;
        self.truncate(0);
    }

    /// Forgets the tokens from `length` on. Returns how many are kept: none where the model's state cannot go back.
    ///
    /// # Panics
    /// While an answer is on its way.
    pub fn truncate(&mut self, length: usize) -> usize {
        assert!(!self.is_running(), "an answer on its way is stopped first");
        let kept = self.cut_cache(length.min(self.tokens().len()));
        self.tokens.truncate(kept);
        kept
    }

    /// Another session that remembers the same tokens; an answer on its way stays with this one. What both share is stored once.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn fork(&self, model: &mut Model) -> Result<Session, Error> {
        let mut cache = model.fork(&self.cache)?;
        let kept = cache.truncate(self.tokens.len());
        Ok(Session {
            cache,
            lineage: self.lineage.fork(kept),
            tokens: self.tokens[..kept].to_vec(),
            prompt: self.prompt,
            mark: None,
            run: None,
        })
    }

    /// Begins to answer `prompt` by the plan. Only what it does not share with the tokens in the cache will be computed.
    ///
    /// # Errors
    /// A prompt that is empty or leaves no room in the context, a token that the model does not know: the session is as before.
    /// [`Error::Constraint`].
    ///
    /// # Panics
    /// While an answer is on its way.
    pub fn begin(&mut self, model: &Model, prompt: &[u32], plan: &GenerationPlan) -> Result<(), Error> {
        assert!(!self.is_running(), "one answer at a time");
        check_prompt(prompt, model.architecture().vocabulary, self.cache.capacity())?;
        let start = Instant::now();
        let mut sampler = Sampler::of(plan, prompt, model.architecture().vocabulary);
        sampler.form(None)?;
        let reused_tokens = self.keep_common(model, prompt);
        self.tokens.clear();
        self.tokens.extend_from_slice(prompt);
        (self.prompt, self.mark) = (prompt.len(), None);
        let answer = Answer {
            tokens: Vec::new(),
            logprobs: Vec::new(),
            finish: Finish::Interrupted,
            prompt_tokens: prompt.len(),
            reused_tokens,
            prefill: Duration::ZERO,
            decode: Duration::ZERO,
        };
        let mut run = Run {
            plan: plan.clone(),
            sampler,
            start,
            answer,
            expected: 0,
            choice: None,
            logits: Vec::new(),
            outcome: None,
        };
        run.outcome = run.is_full(0, prompt.len(), &self.cache).map(Ok);
        self.run = Some(run);
        Ok(())
    }

    /// Whether an answer is on its way.
    pub fn is_running(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.outcome.is_none())
    }

    /// Ends the answer where it is.
    pub fn stop(&mut self) {
        if self.is_running() {
            self.end(Ok(Finish::Interrupted));
        }
    }

    /// The answer that is finished.
    ///
    /// # Errors
    /// [`Error::NoFiniteLogit`] in place of an answer: damaged weights. [`Error::Constraint`]: a form that was not followed in bounded
    /// time.
    ///
    /// # Panics
    /// If there is none.
    pub fn take_answer(&mut self) -> Result<Answer, Error> {
        let finished = self.run.take_if(|run| run.outcome.is_some());
        let Run { answer, outcome, .. } = finished.expect("an answer that is finished");
        let finish = outcome.expect("finished")?;
        Ok(Answer { finish, ..answer })
    }

    /// Gives back the memory of an answer on its way. If it goes on, all tokens so far are computed once more.
    ///
    /// # Panics
    /// While a token is on its way, see [`Batch::settle`].
    pub fn suspend(&mut self, model: &Model) {
        let on_the_way = self.run.as_ref().map_or(0, |run| run.expected);
        assert!(on_the_way == 0, "a token is on its way");
        self.cut_cache(0);
        if self.is_running() {
            model.announce_length(&mut self.cache, self.tokens.len());
        }
    }

    /// What the next pass should compute, at most `piece` tokens of a prompt; `None` when nothing is to be done, or not before a
    /// token is taken. `ahead` lets the pass begin before the token of the last is known.
    pub fn next(&self, ahead: bool, piece: usize) -> Option<Next> {
        let run = self.run.as_ref().filter(|run| run.outcome.is_none())?;
        match self.rest().len() {
            0 => {
                let (tokens, positions) = (run.answer.tokens.len() + 1, self.tokens.len() + 1);
                let goes_on = run.is_full(tokens, positions, &self.cache).is_none();
                (ahead && run.expected == 1 && goes_on && self.may_run_ahead()).then_some(Next::Decode)
            }
            1 => Some(Next::Decode),
            rest => Some(Next::Prefill(rest.min(piece))),
        }
    }

    /// Tokens that the next chunk may take: the rest of the prompt, then what was answered before memory was given back, which is
    /// computed as it was the first time.
    fn rest(&self) -> &[u32] {
        let begin = self.cache.len();
        let ends = [self.mark.unwrap_or(0), self.prompt, self.tokens.len()];
        let end = ends.into_iter().find(|&end| begin < end);
        end.map_or(&[], |end| &self.tokens[begin..end])
    }

    /// Whether a pass may begin before the token of the last is known: not where logits are waited for, nor where the state could not
    /// go back if it is the last.
    pub fn may_run_ahead(&self) -> bool {
        let waits = |run: &Run| run.sampler.may_read_logits() || run.plan.by_logits || run.plan.logprobs.is_some();
        self.cache.can_truncate() && !self.run.as_ref().is_some_and(waits)
    }

    /// Whether the choice of a token depends on the previous token, through a form or penalties: a pass that began before the previous
    /// token was known must choose later.
    pub fn chooses_late(&self) -> bool {
        let depends = |run: &Run| run.sampler.depends_on_tokens();
        self.is_running() && self.run.as_ref().is_some_and(depends)
    }

    /// How the token is chosen of a chunk that wanted it later, by all tokens that were taken meanwhile. Where the answer has ended by
    /// these, it does not matter.
    pub fn late_choice(&mut self) -> LateChoice<'_> {
        let Session { cache, tokens, run, .. } = self;
        let run = run.as_mut().filter(|run| run.outcome.is_none());
        let Some(Run { sampler, .. }) = run else {
            return LateChoice {
                cache,
                choice: Choice::Likeliest,
                adjustments: &[],
                mask: None,
            };
        };
        LateChoice {
            cache,
            choice: sampler.next_choice(tokens),
            adjustments: sampler.adjustments(),
            mask: sampler.mask(),
        }
    }

    /// The chunk for the next pass, at most `piece` tokens of a prompt, and a choice later where `late` says so. Once it was run,
    /// [`Session::took_prefill`] follows for a chunk that wants nothing, [`Session::take`] for one that wants a choice, after
    /// [`Session::late_choice`] if later, and [`Session::take_logits`] for one that wants logits.
    ///
    /// # Panics
    /// If the session wants nothing, see [`Session::next`].
    pub fn chunk(&mut self, piece: usize, late: bool) -> Chunk<'_> {
        let (count, prompt) = (self.rest().len().min(piece), self.prompt);
        let Session { cache, tokens, run, .. } = self;
        let run = run.as_mut().expect("an answer on its way");
        let begin = cache.len();
        let input = match count {
            0 => Input::Chosen,
            _ => Input::Piece {
                tokens: &tokens[begin..begin + count],
                whole: if begin < prompt { prompt } else { 1 },
            },
        };
        let want = match begin + count < tokens.len() {
            true => Want::Nothing,
            false if late => {
                run.expected += 1;
                Want::Later
            }
            false => {
                run.expected += 1;
                let choice = run.sampler.next_choice(tokens);
                match run.plan.by_logits || run.sampler.reads_logits(tokens) {
                    true => {
                        run.choice = Some(choice);
                        Want::Logits
                    }
                    false => Want::Choice {
                        choice,
                        adjustments: run.sampler.adjustments(),
                        mask: run.sampler.mask(),
                        report: run.plan.logprobs.is_some(),
                    },
                }
            }
        };
        Chunk { cache, input, want }
    }

    /// How likely the token was that was taken last, where that was asked for.
    pub fn last_logprobs(&self) -> Option<&TokenLogprobs> {
        self.run.as_ref()?.answer.logprobs.last()
    }

    /// A piece of the prompt was computed that is not its last.
    pub fn took_prefill(&self) -> Step<'static> {
        Step::Prefill {
            done: self.cache.len(),
            total: self.tokens.len(),
        }
    }

    /// Takes the token that the earliest chunk without one chose; `None` where it could not. The step to report, if it is one.
    pub fn take(&mut self, token: Option<u32>) -> Option<Step<'static>> {
        let run = self.run.as_mut().filter(|run| run.outcome.is_none())?;
        run.expected -= 1;
        let elapsed = run.start.elapsed();
        if run.answer.tokens.is_empty() {
            run.answer.prefill = elapsed;
        }
        run.answer.decode = elapsed - run.answer.prefill;
        let Some(token) = token else {
            self.end(Err(Error::NoFiniteLogit));
            return None;
        };
        if run.plan.eos_token_id.contains(&token) {
            self.end(Ok(Finish::EndToken));
            return None;
        }
        if let Some(likeliest) = run.plan.logprobs {
            let logprobs = TokenLogprobs::of(&run.logits, token, likeliest);
            run.answer.logprobs.push(logprobs);
        }
        run.answer.tokens.push(token);
        run.sampler.observe(&[token]);
        self.tokens.push(token);
        match run.sampler.form(Some(token)) {
            Ok(false) => {}
            Ok(true) => self.end(Ok(Finish::EndToken)),
            Err(error) => self.end(Err(error)),
        }
        let run = self.run.as_mut().filter(|run| run.outcome.is_none());
        let Some(run) = run else {
            return Some(Step::Token(token));
        };
        let full = run.is_full(run.answer.tokens.len(), self.tokens.len(), &self.cache);
        let late = run.plan.max_time.is_some_and(|limit| elapsed > limit);
        if let Some(finish) = full.or(late.then_some(Finish::MaxTime)) {
            self.end(Ok(finish));
        }
        Some(Step::Token(token))
    }

    /// Which of its positions it shares with others.
    pub fn lineage(&self) -> &Lineage {
        &self.lineage
    }

    /// Cuts the cache back; how much is left.
    fn cut_cache(&mut self, length: usize) -> usize {
        let before = self.cache.len();
        let kept = self.cache.truncate(length);
        if kept < before {
            self.lineage.cut(kept);
        }
        kept
    }

    /// Takes the logits of a chunk: what tells how likely its token is, and what chooses the token where no device does. Then
    /// they are changed, and the step to report is returned, if it is one. // (vocabulary)
    pub fn take_logits(&mut self, logits: &mut [f32]) -> Option<Step<'static>> {
        let run = self.run.as_mut().filter(|run| run.outcome.is_none())?;
        if run.plan.logprobs.is_some() {
            run.logits.clear();
            run.logits.extend_from_slice(logits);
        }
        let choice = run.choice.take()?;
        let token = run.sampler.choose(&self.tokens, &choice, logits);
        self.take(token)
    }

    /// Ends the answer; what was computed ahead of it is forgotten.
    fn end(&mut self, outcome: Result<Finish, Error>) {
        self.cut_cache(self.tokens.len());
        let run = self.run.as_mut().expect("an answer on its way");
        if run.answer.tokens.is_empty() {
            run.answer.prefill = run.start.elapsed();
        }
        run.outcome = Some(outcome);
    }

    /// The receiver of the steps broke off. Its last token may have ended the answer already.
    pub(crate) fn interrupt(&mut self) {
        self.stop();
        if let Some(Run { outcome, .. }) = &mut self.run {
            *outcome = Some(Ok(Finish::Interrupted));
        }
    }

    /// Answers `prompt` by the plan alone, reporting each step.
    ///
    /// # Errors
    /// As [`Session::begin`]; a failing model.
    ///
    /// # Panics
    /// While an answer is on its way.
    pub fn generate(
        &mut self,
        model: &mut Model,
        prompt: &[u32],
        plan: &GenerationPlan,
        on_step: &mut dyn FnMut(Step<'_>) -> ControlFlow<()>,
    ) -> Result<Answer, Error> {
        self.begin(model, prompt, plan)?;
        let mut batch = Batch::default();
        batch.add(&mut *self);
        let run = batch.run(model, &mut |_, step| on_step(step));
        drop(batch);
        if let Err(error) = run {
            self.run = None;
            return Err(error);
        }
        self.take_answer()
    }

    /// Cuts the cache back to what it shares with `prompt`, its last token left out: that one's logits are needed. Nothing is
    /// left of it where the model's state cannot go back, or where positions of a prompt of this length are encoded otherwise.
    fn keep_common(&mut self, model: &Model, prompt: &[u32]) -> usize {
        let shared = self.tokens().iter().zip(prompt).take_while(|(old, new)| old == new);
        let common = shared.count().min(prompt.len() - 1);
        self.cut_cache(common);
        let before = self.cache.len();
        let kept = model.announce_length(&mut self.cache, prompt.len());
        if kept < before {
            self.lineage.cut(kept);
        }
        kept
    }
}

/// Whether a model with such a vocabulary can answer a prompt in so many positions.
///
/// # Errors
/// [`Error::EmptyPrompt`], [`Error::UnknownToken`], [`Error::ContextFull`].
pub fn check_prompt(prompt: &[u32], vocabulary: usize, context: usize) -> Result<(), Error> {
    if prompt.is_empty() {
        return Err(Error::EmptyPrompt);
    }
    if let Some(&token) = prompt.iter().find(|&&token| token as usize >= vocabulary) {
        return Err(Error::UnknownToken { token, vocabulary });
    }
    if prompt.len() > context {
        return Err(Error::ContextFull {
            prompt: prompt.len(),
            context,
        });
    }
    Ok(())
}
