//! `POST /v1/chat/completions`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use planish::{Request, TextAnswer};
use serde_json::{Map, Value, json};

use super::sampling::Asked;
use super::stream::Chunks;
use super::{fields, finish_reason, messages, reply, stream, tell_ignored, usage};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::replies::{Replies, Reply, Usage};
use crate::state::{State, now};
use crate::status::check_model;

pub(crate) async fn chat(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let mut fields = fields(&state, body).await?;
    let Prepared { requests, asked } = prepare(&state, &mut fields)?;
    let ignored = fields.names_left();
    let mut replies = Replies::ask(&state, requests, false, asked.answers)?;
    let head = Head {
        id: state.id("chatcmpl"),
        created: now(),
        model: state.options.model.clone(),
        answers: asked.answers,
        usage: asked.usage,
    };
    if asked.stream {
        return Ok(tell_ignored(stream::respond(replies, head), &ignored));
    }
    let answers = replies.whole().await?;
    let choices: Vec<Value> = answers.iter().enumerate().map(choice).collect();
    let mut body = head.object("chat.completion", choices);
    body["usage"] = usage(&replies.usage);
    Ok(reply(body, &ignored))
}

/// A conversation that can be submitted.
pub(crate) struct Prepared {
    pub requests: Vec<Request>,
    pub asked: Asked,
}

/// Takes the fields of a conversation: as OpenAI's clients send them, or translated to that.
pub(crate) fn prepare(state: &State, fields: &mut Fields) -> Result<Prepared, ApiError> {
    check_model(state, fields.text("model")?)?;
    let asked = Asked::take(fields, &["max_tokens", "max_completion_tokens"])?;
    let variables = template_variables(fields)?;
    refuse_unsupported(fields)?;
    let messages = messages::take(fields)?;
    let tokenizer = state
        .engine
        .model()
        .tokenizer()
        .map_err(|error| ApiError::failed(&error))?;
    let prompt = tokenizer
        .apply_chat_template_with(&messages, &variables)
        .map_err(|error| ApiError::field("messages", error.to_string()))?;
    let requests = asked.requests(state, vec![prompt]);
    Ok(Prepared { requests, asked })
}

/// Variables of the template that a client sets.
fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut variables = fields.object("chat_template_kwargs")?.unwrap_or_default();
    if let Some(effort) = fields.text("reasoning_effort")? {
        variables.insert("reasoning_effort".to_owned(), Value::from(effort));
    }
    Ok(variables)
}

/// What is understood and not done, unless it asks for nothing.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    for (name, idle) in [
        ("response_format", vec![json!({"type": "text"})]),
        ("tools", vec![json!([])]),
        ("tool_choice", vec![json!("none"), json!("auto")]),
        ("parallel_tool_calls", vec![json!(true), json!(false)]),
        ("functions", vec![json!([])]),
        ("function_call", vec![json!("none"), json!("auto")]),
        ("modalities", vec![json!(["text"])]),
        ("audio", vec![]),
        ("prediction", vec![]),
        ("store", vec![json!(false)]),
        ("web_search_options", vec![]),
    ] {
        fields.refuse(name, &idle)?;
    }
    Ok(())
}

fn choice((index, answer): (usize, &TextAnswer)) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text});
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = Value::from(answer.reasoning.as_str());
    }
    json!({
        "index": index,
        "message": message,
        "logprobs": null,
        "finish_reason": finish_reason(answer.answer.finish),
    })
}

/// What all chunks of a stream have in common.
struct Head {
    id: String,
    created: u64,
    model: String,
    answers: usize,
    usage: bool,
}

impl Head {
    fn object(&self, kind: &str, choices: Vec<Value>) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "choices": choices,
        })
    }

    fn delta(&self, index: usize, delta: Value, finish: Option<&str>) -> Value {
        let choice = json!({"index": index, "delta": delta, "logprobs": null, "finish_reason": finish});
        self.object("chat.completion.chunk", vec![choice])
    }
}

impl Chunks for Head {
    fn begin(&self) -> Vec<Value> {
        let first = |index| self.delta(index, json!({"role": "assistant", "content": ""}), None);
        (0..self.answers).map(first).collect()
    }

    fn chunk(&self, index: usize, reply: &Reply) -> Option<Value> {
        match reply {
            Reply::Text(text) => Some(self.delta(index, json!({"content": text}), None)),
            Reply::Reasoning(text) => Some(self.delta(index, json!({"reasoning_content": text}), None)),
            Reply::Finished(answer) => {
                let reason = finish_reason(answer.answer.finish);
                Some(self.delta(index, json!({}), Some(reason)))
            }
            Reply::Begun { .. } | Reply::Failed(_) => None,
        }
    }

    fn usage(&self, tokens: &Usage) -> Option<Value> {
        self.usage.then(|| {
            let mut body = self.object("chat.completion.chunk", Vec::new());
            body["usage"] = usage(tokens);
            body
        })
    }
}
