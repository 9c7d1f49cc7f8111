//! An answer on its way, and its client.

use std::ops::ControlFlow;

use planish_generate::{Answer, Step};

use super::client::{Client, EngineEvent};
use crate::told::Told;
use crate::{Error, TextStep};

/// An answer that has begun.
pub(super) struct Job<'a> {
    /// How many began before it.
    pub number: u64,
    pub client: Box<dyn Client>,
    pub told: Told<'a>,
    pub failure: Option<Error>,
    /// The client broke off.
    pub gone: bool,
    /// Tokens of its prompt that were remembered for others last, or that it began with.
    pub remembered: usize,
}

impl Job<'_> {
    /// Tells what a step makes certain.
    pub(super) fn take(&mut self, step: Step<'_>) -> ControlFlow<()> {
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
        match self.told.take(token, &mut |piece| tell(client, gone, piece)) {
            Ok(flow) => match tell_event(client, gone, EngineEvent::Token(token)) {
                ControlFlow::Continue(()) => flow,
                ControlFlow::Break(()) => ControlFlow::Break(()),
            },
            Err(error) => {
                self.failure = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// The last event.
    pub(super) fn finish(mut self, answer: Result<Answer, Error>) {
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
