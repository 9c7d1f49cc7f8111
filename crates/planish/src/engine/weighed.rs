//! One answer whose logits the caller sees, and may change, before each token is chosen.

use std::ops::ControlFlow;

use planish_generate::{GenerationPlan, Session, Step};

use super::EngineRequest;
use super::client::EngineEvent;
use super::job::Job;
use crate::told::Told;
use crate::{CausalLM, Error};

/// Prompt tokens computed at once.
const PIECE: usize = 512;

/// Sees all tokens so far and the logits of the next, before penalties and sampling. Breaking off ends the answer.
pub type Weigh<'a> = dyn FnMut(&[u32], &mut [f32]) -> ControlFlow<()> + 'a;

impl CausalLM {
    /// Answers one request on the caller's thread, step by step: slower than [`Engine`](crate::Engine), whose tokens are chosen where
    /// the logits are. Its client is told as an engine tells it.
    ///
    /// # Errors
    /// A request that [`CausalLM::check`] refuses. What comes later is told to the client.
    pub fn answer_weighed(&self, request: EngineRequest, weigh: &mut Weigh<'_>) -> Result<(), Error> {
        let plan = GenerationPlan {
            by_logits: true,
            ..self.check(&request.request)?
        };
        let EngineRequest {
            request,
            continues,
            mut client,
        } = request;
        let context = if continues { request.prompt.as_slice() } else { &[] };
        let told = Told::new(self, &plan, context)?;
        let mut session = Session::new(&self.lock());
        session.begin(&self.lock(), &request.prompt, &plan)?;
        let flow = client.on_event(EngineEvent::Begun {
            prompt_tokens: request.prompt.len(),
            cached_tokens: 0,
        });
        let mut job = Job {
            number: 0,
            client,
            told,
            failure: None,
            gone: flow.is_break(),
            remembered: 0,
            mark: None,
        };
        let answer = self.weighed_steps(&mut session, &mut job, weigh);
        job.finish(answer.and_then(|()| Ok(session.take_answer()?)));
        Ok(())
    }

    fn weighed_steps(&self, session: &mut Session, job: &mut Job<'_>, weigh: &mut Weigh<'_>) -> Result<(), Error> {
        let mut logits = Vec::new();
        while session.is_running() {
            if job.gone || job.client.is_gone() {
                session.stop();
                break;
            }
            self.lock().run(&mut [session.chunk(PIECE, false)], &mut |row| {
                logits.extend_from_slice(row.logits);
            })?;
            if logits.is_empty() {
                continue;
            }
            if weigh(session.known_tokens(), &mut logits).is_break() {
                session.stop();
                break;
            }
            let step = session.take_logits(&mut logits);
            logits.clear();
            let likely = session.last_logprobs().map(Step::Logprobs);
            let steps = step.map(|token| likely.into_iter().chain([token]));
            if steps.into_iter().flatten().any(|step| job.take(step).is_break()) {
                session.stop();
            }
        }
        Ok(())
    }
}
