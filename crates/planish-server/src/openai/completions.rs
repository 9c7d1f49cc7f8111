//! `POST /v1/completions`: texts or tokens, continued.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use planish::{AutoTokenizer, Reading, TokenLogprobs};
use serde_json::{Value, json};

use super::sampling::Asked;
use super::stream::Chunks;
use super::{fields, finish_reason, format, logprobs, reply, stream, tell_ignored, usage};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::replies::{Replies, Reply, Usage};
use crate::state::{State, now};
use crate::status::check_model;

/// Prompts of a request, at most.
const MOST_PROMPTS: usize = 128;
/// Tokens of an answer where the client does not say, as OpenAI has it.
const MOST_TOKENS: u64 = 16;

pub(crate) async fn completions(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let mut fields = fields(&state, body).await?;
    check_model(&state, fields.text("model")?)?;
    let mut asked = Asked::take(&mut fields, &["max_tokens"])?;
    asked.set_default_length(MOST_TOKENS as usize);
    let likeliest = logprobs::of_completion(&mut fields)?;
    asked.set_logprobs(likeliest);
    let format = format::take(&mut fields)?;
    asked.set_reading(Reading::default(), format.constraint);
    asked.check_form(&state, format.param).await?;
    let tokenizer = state
        .engine
        .model()
        .tokenizer()
        .map_err(|error| ApiError::failed(&error))?;
    let prompts = prompts(&mut fields, tokenizer)?;
    let ignored = fields.names_left();

    let requests = asked.requests(&state, prompts);
    let count = requests.len();
    let mut replies = Replies::ask(&state, requests, true, asked.answers)?;
    let head = Head {
        id: state.id("cmpl"),
        created: now(),
        model: state.options.model.clone(),
        usage: asked.usage,
        likely: likeliest.map(|_| vec![Likely::default(); count]),
        state: Arc::clone(&state),
    };
    if asked.stream {
        return Ok(tell_ignored(stream::respond(replies, head), &ignored));
    }
    let answers = replies.whole().await?.into_iter().enumerate();
    let choices = answers.map(|(index, answer)| {
        let reason = finish_reason(&answer);
        let likely = likeliest.map(|_| logprobs::lists(tokenizer, &answer.answer.logprobs, &mut 0));
        choice(index, &answer.text, Some(reason), likely)
    });
    let mut body = head.object(choices.collect());
    body["usage"] = usage(&replies.usage);
    Ok(reply(body, &ignored))
}

/// A text, texts, tokens, or lists of tokens.
fn prompts(fields: &mut Fields, tokenizer: &AutoTokenizer) -> Result<Vec<Vec<u32>>, ApiError> {
    let expected = || ApiError::field("prompt", "prompt must be a text, tokens, or a list of these");
    let encode = |text: &str| {
        tokenizer
            .encode(text)
            .map_err(|error| ApiError::field("prompt", error.to_string()))
    };
    let tokens = |list: &[Value]| {
        let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
        list.iter()
            .map(token)
            .collect::<Option<Vec<u32>>>()
            .ok_or_else(expected)
    };
    let prompts = match fields.take("prompt") {
        Some(Value::String(text)) => vec![encode(&text)?],
        Some(Value::Array(list)) if list.first().is_some_and(Value::is_number) => vec![tokens(&list)?],
        Some(Value::Array(list)) if !list.is_empty() && list.len() <= MOST_PROMPTS => {
            let one = |value: &Value| match value {
                Value::String(text) => encode(text),
                Value::Array(list) => tokens(list),
                _ => Err(expected()),
            };
            list.iter().map(one).collect::<Result<_, _>>()?
        }
        Some(Value::Array(list)) if list.len() > MOST_PROMPTS => {
            let message = format!("prompt has {} items, expected at most {MOST_PROMPTS}", list.len());
            return Err(ApiError::field("prompt", message));
        }
        _ => return Err(expected()),
    };
    Ok(prompts)
}

fn choice(index: usize, text: &str, finish: Option<&str>, likely: Option<Value>) -> Value {
    json!({"index": index, "text": text, "logprobs": likely, "finish_reason": finish})
}

/// How likely an answer's tokens are whose text is still to be told.
#[derive(Clone, Default)]
struct Likely {
    tokens: Vec<TokenLogprobs>,
    /// Characters of the text before.
    offset: usize,
}

/// What all chunks of a stream have in common.
struct Head {
    id: String,
    created: u64,
    model: String,
    usage: bool,
    /// Of each answer.
    likely: Option<Vec<Likely>>,
    state: Arc<State>,
}

impl Head {
    fn object(&self, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    /// What is known of tokens since it was told last.
    fn take_likely(&mut self, index: usize) -> Option<Value> {
        let likely = self.likely.as_mut().map(|likely| &mut likely[index])?;
        let tokenizer = self.state.engine.model().tokenizer().ok()?;
        let tokens = std::mem::take(&mut likely.tokens);
        (!tokens.is_empty()).then(|| logprobs::lists(tokenizer, &tokens, &mut likely.offset))
    }
}

impl Chunks for Head {
    fn begin(&self) -> Vec<Value> {
        Vec::new()
    }

    fn chunk(&mut self, index: usize, reply: &Reply) -> Option<Value> {
        let choice = match reply {
            Reply::Logprobs(token) => {
                self.likely.as_mut()?[index].tokens.push(token.clone());
                return None;
            }
            // A text that is continued has no channels.
            Reply::Text(text) | Reply::Reasoning(text) => choice(index, text, None, self.take_likely(index)),
            Reply::Finished(answer) => {
                let reason = finish_reason(answer);
                choice(index, "", Some(reason), self.take_likely(index))
            }
            Reply::Begun { .. } | Reply::Call(_) | Reply::Arguments(_) | Reply::Failed(_) => return None,
        };
        Some(self.object(vec![choice]))
    }

    fn usage(&self, tokens: &Usage) -> Option<Value> {
        self.usage.then(|| {
            let mut body = self.object(Vec::new());
            body["usage"] = usage(tokens);
            body
        })
    }
}
