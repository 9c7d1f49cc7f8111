//! Many prompts answered side by side.

use std::ops::ControlFlow;

use planish_generate::{
    Answer, Batch, Detokenizer, Finish, GenerationConfig, GenerationPlan, Member, Step, StopStrings, check_prompt,
};

use crate::{CausalLM, Error};

/// A prompt, and how to answer it.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// Its tokens.
    pub prompt: Vec<u32>,
    /// How to answer.
    pub config: GenerationConfig,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub enum ManyStep<'a> {
    /// A step of its answer.
    Step(Step<'a>),
    /// The answer is finished.
    Answer(&'a Answer),
    /// The answer cannot go on: the model's logits are no numbers. The others do.
    Failed(&'a Error),
}

impl CausalLM {
    /// Answers requests in their order, `parallel` at a time; as soon as one is finished, the next begins. Each gets the answer that
    /// it gets alone (on the CPU to the bit, up to [`CausalLM::batch`] at a time). The receiver, told the index of the request, may
    /// break off: all answers end then. It must not use the model. Returns an answer for each, `None` where it did not begin or
    /// failed.
    ///
    /// # Errors
    /// Before anything runs: a request that [`CausalLM::check`] refuses. A failing device.
    ///
    /// # Panics
    /// If `parallel` is 0.
    pub fn generate_many(
        &self,
        requests: &[Request],
        parallel: usize,
        on_step: &mut dyn FnMut(usize, ManyStep<'_>) -> ControlFlow<()>,
    ) -> Result<Vec<Option<Answer>>, Error> {
        assert!(parallel > 0, "at least one answer at a time");
        let plans = requests.iter().map(|request| self.check(request));
        let plans: Vec<GenerationPlan> = plans.collect::<Result<_, _>>()?;
        let mut stops: Vec<Option<Stop<'_>>> = plans
            .iter()
            .map(|plan| Stop::new(self, plan))
            .collect::<Result<_, _>>()?;
        let mut answers = vec![None; requests.len()];
        let mut waiting = requests.iter().zip(&plans).enumerate();
        let mut batch = Batch::default();
        let mut members: Vec<(Member, usize)> = Vec::new();
        let mut flow = ControlFlow::Continue(());
        loop {
            // Others who use the model take turns.
            let mut model = self.lock();
            while batch.len() < parallel && flow.is_continue() {
                let Some((index, (request, plan))) = waiting.next() else {
                    break;
                };
                let mut session = planish_generate::Session::new(&model);
                session.begin(&model, &request.prompt, plan)?;
                members.push((batch.add(session), index));
            }
            if batch.is_empty() {
                return Ok(answers);
            }
            batch.step(&mut model, &mut |member, step| {
                let index = index_of(&members, member);
                if flow.is_continue() {
                    flow = on_step(index, ManyStep::Step(step));
                }
                let stops = stops[index].as_mut();
                match flow.is_continue() && stops.is_some_and(|stop| stop.comes(step)) {
                    true => ControlFlow::Break(()),
                    false => flow,
                }
            })?;
            if flow.is_break() {
                batch.stop();
            }
            while let Some((member, mut session)) = batch.take_finished() {
                let index = index_of(&members, member);
                members.retain(|&(other, _)| other != member);
                let mut answer = match session.take_answer() {
                    Ok(answer) => answer,
                    Err(error) => {
                        if flow.is_continue() {
                            flow = on_step(index, ManyStep::Failed(&error.into()));
                        }
                        continue;
                    }
                };
                if stops[index].as_ref().is_some_and(|stop| stop.found.is_stopped()) {
                    answer.finish = Finish::StopString;
                }
                if flow.is_continue() {
                    flow = on_step(index, ManyStep::Answer(&answer));
                }
                answers[index] = Some(answer);
            }
        }
    }

    /// Every choice of a request made, the request found fit to be answered.
    ///
    /// # Errors
    /// An empty prompt or one that the context cannot hold, a token outside of the vocabulary, an option out of its range.
    pub fn check(&self, request: &Request) -> Result<GenerationPlan, Error> {
        let plan = self.plan(&request.config)?;
        let architecture = self.architecture();
        check_prompt(&request.prompt, architecture.vocabulary, architecture.context)?;
        let unknown = |&&(token, _): &&(u32, f32)| token as usize >= architecture.vocabulary;
        if let Some((token, _)) = plan.restrictions.token_biases.iter().find(unknown) {
            return Err(Error::Generate(planish_generate::Error::Option {
                option: "logit_bias",
                found: format!("of token {token}"),
                expected: "tokens of the model's vocabulary",
            }));
        }
        Ok(plan)
    }

    /// How many answers the model likes to give at a time.
    pub fn batch(&self) -> usize {
        self.lock().batch()
    }
}

/// Looks for the stop strings of one answer.
struct Stop<'a> {
    detokenizer: Detokenizer<'a>,
    found: StopStrings,
}

impl<'a> Stop<'a> {
    /// `None` where nothing but end tokens stops.
    fn new(model: &'a CausalLM, plan: &GenerationPlan) -> Result<Option<Stop<'a>>, Error> {
        if plan.stop_strings.is_empty() {
            return Ok(None);
        }
        Ok(Some(Stop {
            detokenizer: model.tokenizer()?.tokenizer().detokenizer(),
            found: StopStrings::new(&plan.stop_strings),
        }))
    }

    /// Whether a stop string is there with this step.
    fn comes(&mut self, step: Step<'_>) -> bool {
        if let Step::Token(token) = step {
            // A decoder that fails is told by whoever decodes the answer.
            let text = self.detokenizer.push(token).unwrap_or_default();
            self.found.push(&text);
        }
        self.found.is_stopped()
    }
}

fn index_of(members: &[(Member, usize)], member: Member) -> usize {
    let found = members.iter().find(|(other, _)| *other == member);
    found.expect("a request that is being answered").1
}
