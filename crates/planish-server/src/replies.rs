//! From the engine's thread to a request that waits: events of all its answers, in one channel.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use planish::{Client, EngineEvent, EngineRequest, Finish, Request, TextAnswer, TokenLogprobs};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::error::ApiError;
use crate::state::State;

/// Something that an answer's client is told.
#[derive(Debug)]
pub(crate) enum Reply {
    Begun {
        prompt: usize,
        cached: usize,
    },
    /// Of the next token of the answer.
    Logprobs(TokenLogprobs),
    Text(String),
    Reasoning(String),
    /// A call of this tool begins.
    Call(String),
    /// More of the arguments of the call that began last.
    Arguments(String),
    Finished(TextAnswer),
    Failed(ApiError),
}

/// Answers to one request of HTTP. Dropped, it ends them.
pub(crate) struct Replies {
    events: UnboundedReceiver<(usize, Reply)>,
    left: usize,
    pub usage: Usage,
    state: Arc<State>,
    start: Instant,
    first: bool,
}

/// Tokens of a request: a prompt with several answers counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    pub prompt: usize,
    pub cached: usize,
    pub answers: usize,
    /// Of these, tokens of reasoning.
    pub reasoning: usize,
}

/// The engine's side. What waits in the channel is bounded by the length of the answer.
struct Sender {
    index: usize,
    events: UnboundedSender<(usize, Reply)>,
}

impl Client for Sender {
    fn on_event(&mut self, event: EngineEvent<'_>) -> ControlFlow<()> {
        let reply = match event {
            EngineEvent::Begun {
                prompt_tokens,
                cached_tokens,
            } => Reply::Begun {
                prompt: prompt_tokens,
                cached: cached_tokens,
            },
            EngineEvent::Logprobs(logprobs) => Reply::Logprobs(logprobs.clone()),
            EngineEvent::Text(text) => Reply::Text(text.to_owned()),
            EngineEvent::Reasoning(text) => Reply::Reasoning(text.to_owned()),
            EngineEvent::Call(name) => Reply::Call(name.to_owned()),
            EngineEvent::Arguments(text) => Reply::Arguments(text.to_owned()),
            EngineEvent::Token(_) => return ControlFlow::Continue(()),
            EngineEvent::Finished(answer) => Reply::Finished(answer.clone()),
            EngineEvent::Failed(error) => Reply::Failed(ApiError::failed(error)),
        };
        match self.events.send((self.index, reply)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn is_gone(&self) -> bool {
        self.events.is_closed()
    }
}

impl Replies {
    /// Submits answers. `per_prompt` of them in a row have the same prompt.
    pub(crate) fn ask(
        state: &Arc<State>,
        requests: Vec<Request>,
        continues: bool,
        per_prompt: usize,
    ) -> Result<Replies, ApiError> {
        let (sender, events) = unbounded_channel();
        let left = requests.len();
        let prompt = requests
            .iter()
            .step_by(per_prompt)
            .map(|request| request.prompt.len())
            .sum();
        let requests = requests.into_iter().enumerate().map(|(index, request)| EngineRequest {
            request,
            continues,
            client: Box::new(Sender {
                index,
                events: sender.clone(),
            }),
        });
        state.engine.submit(requests.collect())?;
        Ok(Replies {
            events,
            left,
            usage: Usage {
                prompt,
                ..Usage::default()
            },
            state: Arc::clone(state),
            start: Instant::now(),
            first: true,
        })
    }

    /// The next event, `None` after the last of all answers. An answer that was cut off, or an engine that is gone, is an error.
    pub(crate) async fn next(&mut self) -> Option<Result<(usize, Reply), ApiError>> {
        if self.left == 0 {
            return None;
        }
        let received = tokio::select! {
            biased;
            received = self.events.recv() => received,
            () = self.state.is_cut() => {
                self.left = 0;
                return Some(Err(ApiError::shutting_down()));
            }
        };
        let Some((index, reply)) = received else {
            self.left = 0;
            let message = "the engine has ended";
            let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            return Some(Err(ApiError::new(status, message)));
        };
        match &reply {
            // Only the first answer to a prompt says what was remembered before this request.
            Reply::Begun { prompt, cached } if self.usage.cached == 0 && index == 0 => {
                self.usage.cached = *cached;
                debug_assert!(cached < prompt);
            }
            Reply::Text(_) | Reply::Reasoning(_) | Reply::Call(_) if self.first => {
                self.first = false;
                self.state.metrics.first_token.observe(self.start.elapsed());
            }
            Reply::Finished(answer) => {
                self.left -= 1;
                self.usage.answers += answer.answer.tokens.len();
                self.usage.reasoning += answer.reasoning_tokens;
                if self.left == 0 {
                    self.state.metrics.request.observe(self.start.elapsed());
                }
                if answer.answer.finish == Finish::Interrupted {
                    self.left = 0;
                    return Some(Err(ApiError::shutting_down()));
                }
            }
            Reply::Failed(error) => {
                self.left = 0;
                return Some(Err(error.clone()));
            }
            _ => {}
        }
        Some(Ok((index, reply)))
    }

    /// As [`Replies::next`], `Err` if nothing came for so long.
    pub(crate) async fn next_within(&mut self, time: Duration) -> Result<Option<Result<(usize, Reply), ApiError>>, ()> {
        tokio::time::timeout(time, self.next()).await.map_err(drop)
    }

    /// All answers whole, in their order. Their log probabilities are those of what they say, without reasoning.
    pub(crate) async fn whole(&mut self) -> Result<Vec<TextAnswer>, ApiError> {
        let mut answers: Vec<(usize, TextAnswer)> = Vec::new();
        let mut logprobs: Vec<(usize, TokenLogprobs)> = Vec::new();
        while let Some(event) = self.next().await {
            match event? {
                (index, Reply::Logprobs(token)) => logprobs.push((index, token)),
                (index, Reply::Finished(mut answer)) => {
                    let own = logprobs.extract_if(.., |(other, _)| *other == index);
                    answer.answer.logprobs = own.map(|(_, token)| token).collect();
                    answers.push((index, answer));
                }
                _ => {}
            }
        }
        answers.sort_by_key(|(index, _)| *index);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    }
}
