//! Many sessions on one model, pass by pass: every pass takes one token of each session that answers, and a piece of the prompt of
//! one that does not yet, so that an answer never waits for more than one piece of another's prompt.
//!
//! Sessions join and leave between passes. Each gives the answer that it gives alone: on the CPU to the bit, as long as no more
//! than [`Model::batch`] are there.

use std::borrow::BorrowMut;
use std::collections::VecDeque;
use std::ops::ControlFlow;

use planish_model::{Chunk, LateChoice, Model, Ticket, Want};
use smallvec::SmallVec;

use crate::session::PREFILL_TOKENS;
use crate::{Error, Next, Session, Step};

/// Sessions for which a pass takes no memory.
const FEW: usize = 64;

/// Names a session of a batch; never given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member(usize);

impl Member {
    /// How many joined before it.
    pub fn number(self) -> usize {
        self.0
    }
}

/// Sessions that are answered together: owned ones, or borrowed as `Batch<&mut Session>`.
pub struct Batch<S> {
    members: Vec<(Member, S)>, // in the order in which they joined
    passes: VecDeque<Pass>,    // whose tokens are on their way
    tokens: Vec<Option<u32>>,
    logits: Vec<f32>, // (sessions that choose by logits, vocabulary)
    joined: usize,
    piece: usize, // tokens of prompts in a pass, at most
}

/// A pass that chooses tokens.
struct Pass {
    ticket: Ticket,
    members: SmallVec<[Member; FEW]>, // in the order of their tokens
}

impl<S> Default for Batch<S> {
    fn default() -> Batch<S> {
        Batch {
            members: Vec::new(),
            passes: VecDeque::new(),
            tokens: Vec::new(),
            logits: Vec::new(),
            joined: 0,
            piece: PREFILL_TOKENS,
        }
    }
}

impl<S: BorrowMut<Session>> Batch<S> {
    /// Lets a session join, which has begun an answer.
    pub fn add(&mut self, session: S) -> Member {
        let member = Member(self.joined);
        self.joined += 1;
        self.members.push((member, session));
        member
    }

    /// Lets a session leave at once, its answer on its way or finished. `None` if it is not here.
    pub fn remove(&mut self, member: Member) -> Option<S> {
        let index = self.position(member)?;
        let (_, mut session) = self.members.remove(index);
        // Tokens that are on their way find it no more.
        session.borrow_mut().stop();
        Some(session)
    }

    /// A session whose answer is finished leaves, the one that joined first.
    pub fn take_finished(&mut self) -> Option<(Member, S)> {
        let finished = |(_, session): &(Member, S)| !session.borrow().is_running();
        let index = self.members.iter().position(finished)?;
        Some(self.members.remove(index))
    }

    /// Lets a session leave with its answer on its way, which can join again. `None` if it is not here.
    ///
    /// # Panics
    /// While a pass is under way, see [`Batch::settle`].
    pub fn take_out(&mut self, member: Member) -> Option<S> {
        assert!(self.passes.is_empty(), "a pass is under way");
        let index = self.position(member)?;
        Some(self.members.remove(index).1)
    }

    /// A session that is here.
    pub fn get(&self, member: Member) -> Option<&S> {
        Some(&self.members[self.position(member)?].1)
    }

    /// Computes so many tokens of prompts in a pass at most: fewer let answers wait less for prompts, more read prompts faster.
    ///
    /// # Panics
    /// If `tokens` is 0.
    pub fn set_piece(&mut self, tokens: usize) {
        assert!(tokens > 0, "a pass takes a token at least");
        self.piece = tokens;
    }

    /// Waits for all passes that are under way.
    ///
    /// # Errors
    /// As [`Batch::step`].
    pub fn settle(
        &mut self,
        model: &mut Model,
        on_step: &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let mut result = Ok(());
        while result.is_ok() && !self.passes.is_empty() {
            result = self.take(model, on_step);
        }
        if result.is_err() {
            self.stop();
        }
        result
    }

    /// Ends all answers where they are.
    pub fn stop(&mut self) {
        self.passes.clear();
        self.members
            .iter_mut()
            .for_each(|(_, session)| session.borrow_mut().stop());
    }

    /// Sessions that are here.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Passes until all answers are finished.
    ///
    /// # Errors
    /// As [`Batch::step`].
    pub fn run(
        &mut self,
        model: &mut Model,
        on_step: &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        while self.members.iter().any(|(_, session)| session.borrow().is_running()) {
            self.step(model, on_step)?;
        }
        Ok(())
    }

    /// One pass: computes what the sessions want and hands out what was chosen. A session whose receiver breaks off ends alone.
    ///
    /// # Errors
    /// A failing model: no session goes on then.
    pub fn step(
        &mut self,
        model: &mut Model,
        on_step: &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        self.step_ahead(model, model.runs_ahead(), on_step)
    }

    fn step_ahead(
        &mut self,
        model: &mut Model,
        ahead: bool,
        on_step: &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        // All or none: who cannot begin before its token is known would miss every second pass.
        let may_run_ahead = |(_, session): &(Member, S)| session.borrow().may_run_ahead();
        let ahead = ahead && self.members.iter().all(may_run_ahead);
        let result = self.launch(model, ahead, on_step).and_then(|launched| {
            while self.passes.len() > usize::from(ahead && launched) {
                self.take(model, on_step)?;
            }
            Ok(())
        });
        if result.is_err() {
            self.stop();
        }
        result
    }

    /// Begins a pass of what the sessions want; `false` if that is nothing.
    fn launch(
        &mut self,
        model: &mut Model,
        ahead: bool,
        on_step: &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
    ) -> Result<bool, Error> {
        let mut chunks: SmallVec<[Chunk<'_>; FEW]> = SmallVec::new();
        let mut choosing: SmallVec<[Member; FEW]> = SmallVec::new();
        let mut reading: SmallVec<[Member; 1]> = SmallVec::new();
        let mut taking_part: SmallVec<[Member; FEW]> = SmallVec::new();
        // What a choice depends on is found out while the device computes the logits.
        let late = ahead && self.members.iter().any(|(_, session)| session.borrow().chooses_late());
        // Tokens of prompts, besides a first piece of any length.
        let mut room = None;
        for (member, session) in &mut self.members {
            let session = session.borrow_mut();
            match session.next(ahead, self.piece) {
                None => continue,
                Some(Next::Prefill(count)) if room.is_some_and(|room| count > room) => continue,
                Some(Next::Prefill(count)) => room = Some(room.unwrap_or(self.piece) - count),
                Some(Next::Decode) => {}
            }
            let chunk = session.chunk(self.piece, late);
            match chunk.want {
                Want::Choice { .. } | Want::Later => choosing.push(*member),
                Want::Nothing => reading.push(*member),
                Want::Logits | Want::AllLogits => {}
            }
            chunks.push(chunk);
            taking_part.push(*member);
        }
        if chunks.is_empty() {
            return Ok(false);
        }
        let vocabulary = model.architecture().vocabulary;
        let mut logits = std::mem::take(&mut self.logits);
        logits.clear();
        let mut weighing: SmallVec<[Member; FEW]> = SmallVec::new();
        let ticket = model.run(&mut chunks, &mut |row| {
            weighing.push(taking_part[row.chunk]);
            logits.extend_from_slice(row.logits);
        })?;
        drop(chunks);
        let ticket = match late && !choosing.is_empty() {
            false => ticket,
            true => {
                while !self.passes.is_empty() {
                    self.take(model, on_step)?;
                }
                Some(self.choose(model, &choosing)?)
            }
        };
        self.passes.extend(ticket.map(|ticket| Pass {
            ticket,
            members: choosing,
        }));
        for member in reading {
            let session = self.session(member).expect("took part");
            let step = session.took_prefill();
            if on_step(member, step).is_break() {
                session.interrupt();
            }
        }
        for (&member, logits) in weighing.iter().zip(logits.chunks_exact_mut(vocabulary)) {
            let session = self.session(member).expect("took part");
            if let Some(step) = session.take_logits(logits) {
                tell(session, member, step, on_step);
            }
        }
        self.logits = logits;
        Ok(true)
    }

    /// Chooses what these members, in their order, wanted later of the pass that was begun last.
    fn choose(&mut self, model: &mut Model, choosing: &[Member]) -> Result<Ticket, Error> {
        let mut wanting = choosing.iter().peekable();
        let members = self.members.iter_mut();
        let choices = members.filter_map(|(member, session)| {
            wanting.next_if(|wanted| **wanted == *member)?;
            Some(session.borrow_mut().late_choice())
        });
        let choices: SmallVec<[LateChoice<'_>; FEW]> = choices.collect();
        Ok(model.choose(&choices)?)
    }

    /// Hands out the tokens of the earliest pass.
    fn take(
        &mut self,
        model: &mut Model,
        on_step: &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let pass = self.passes.pop_front().expect("a pass under way");
        let mut tokens = std::mem::take(&mut self.tokens);
        model.take(pass.ticket, &mut tokens)?;
        for (&member, &token) in pass.members.iter().zip(&tokens) {
            // Gone, or finished before this pass.
            let Some(session) = self.session(member) else { continue };
            if let Some(step) = session.take(token) {
                tell(session, member, step, on_step);
            }
        }
        self.tokens = tokens;
        Ok(())
    }

    fn position(&self, member: Member) -> Option<usize> {
        // Members are named in the order in which they join.
        self.members.binary_search_by_key(&member, |(member, _)| *member).ok()
    }

    fn session(&mut self, member: Member) -> Option<&mut Session> {
        let index = self.position(member)?;
        Some(self.members[index].1.borrow_mut())
    }
}

/// Hands out a token that was taken, after how likely it was where that is asked.
fn tell(
    session: &mut Session,
    member: Member,
    step: Step<'static>,
    on_step: &mut dyn FnMut(Member, Step<'_>) -> ControlFlow<()>,
) {
    let mut flow = ControlFlow::Continue(());
    if let Some(logprobs) = session.last_logprobs() {
        flow = on_step(member, Step::Logprobs(logprobs));
    }
    if flow.is_break() || on_step(member, step).is_break() {
        session.interrupt();
    }
}

#[cfg(all(test, feature = "structured"))]
mod tests {
    use std::path::Path;

    use planish_checkpoint::Checkpoint;
    use planish_model::LoadOptions;

    use super::*;
    use crate::{
        Answer, Constraint, Cutoffs, Files, Finish, GenerationPlan, Grammars, Reading, Restrictions, Sampling,
        Tokenizer,
    };

    fn model() -> (Model, Grammars) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/demo");
        let options = LoadOptions {
            threads: Some(1),
            exact: true,
            ..LoadOptions::default()
        };
        let model = Model::load(&Checkpoint::open(&folder).unwrap(), &options).unwrap();
        let files = Files {
            tokenizer: Some(std::fs::read(folder.join("tokenizer.json")).unwrap()),
            ..Files::default()
        };
        let tokenizer = Tokenizer::new(&files).unwrap();
        let grammars = Grammars::new(&tokenizer, model.architecture().vocabulary).unwrap();
        (model, grammars)
    }

    fn plan(seed: Option<u64>) -> GenerationPlan {
        GenerationPlan {
            max_new_tokens: 30,
            sampling: Sampling {
                do_sample: seed.is_some(),
                temperature: 0.9,
                top_k: 0,
                top_p: 1.0,
                min_p: 0.0,
                repetition_penalty: 1.0,
                presence_penalty: 0.0,
                frequency_penalty: 0.0,
                seed: seed.unwrap_or(0),
                cutoffs: Cutoffs::default(),
            },
            restrictions: Restrictions::default(),
            eos_token_id: Vec::new(),
            stop_strings: Vec::new(),
            max_time: None,
            logprobs: None,
            reading: Reading::default(),
            by_logits: false,
            grammar: None,
        }
    }

    /// Answers side by side. Each prompt joins one pass after the previous prompt; the last answer is stopped after five tokens.
    fn answers(model: &mut Model, asked: &[(Vec<u32>, GenerationPlan)], ahead: bool) -> Vec<Answer> {
        let mut batch = Batch::default();
        let mut found: Vec<Option<Answer>> = asked.iter().map(|_| None).collect();
        let (mut told, mut joined) = (0, 0);
        while found.iter().any(Option::is_none) {
            if let Some((prompt, plan)) = asked.get(joined) {
                let mut session = Session::new(model);
                session.begin(model, prompt, plan).unwrap();
                batch.add(session);
                joined += 1;
            }
            let last = asked.len() - 1;
            let step = batch.step_ahead(model, ahead, &mut |member, step| {
                told += usize::from(member.number() == last && matches!(step, Step::Token(_)));
                match member.number() == last && told == 5 {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                }
            });
            step.unwrap();
            while let Some((member, mut session)) = batch.take_finished() {
                found[member.number()] = Some(session.take_answer().unwrap());
            }
        }
        found.into_iter().flatten().collect()
    }

    /// Passes that begin before the tokens are known on which their choices depend give the same answers.
    #[test]
    fn choices_that_come_late_are_the_same() {
        let (mut model, grammars) = model();
        let schema = r#"{"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}},
            "required": ["a"], "additionalProperties": false}"#;
        let form = |text: &str| {
            let constraint = Constraint::JsonSchema(serde_json::from_str(text).unwrap());
            Some(grammars.compile(&constraint).unwrap())
        };
        let prompt = |first: u32| -> Vec<u32> { (first..first + 20).collect() };
        let mut penalized = plan(Some(3));
        penalized.sampling.repetition_penalty = 1.5;
        penalized.sampling.frequency_penalty = 0.5;
        let short = plan(None);
        let formed = |seed| GenerationPlan {
            grammar: form(schema),
            ..plan(seed)
        };
        let greedy = answers(&mut model, &[(prompt(300), short.clone())], false);
        // Ends in the middle.
        let ending = GenerationPlan {
            eos_token_id: vec![greedy[0].tokens[4]],
            ..short.clone()
        };
        let asked = [
            (prompt(300), ending),
            (prompt(40), formed(None)),
            (prompt(500), penalized),
            (vec![7], plan(Some(8))),
            (prompt(60), formed(Some(4))),
            (prompt(90), formed(Some(5))),
        ];
        let late = answers(&mut model, &asked, true);
        let usual = answers(&mut model, &asked, false);
        for (late, usual) in late.iter().zip(&usual) {
            assert_eq!((&late.tokens, late.finish), (&usual.tokens, usual.finish));
        }
        let ends: Vec<Finish> = late.iter().map(|answer| answer.finish).collect();
        assert_eq!((ends[0], ends[5]), (Finish::EndToken, Finish::Interrupted));
        assert_eq!(ends[1], Finish::EndToken, "the form is whole: {:?}", late[1].tokens);
    }
}
