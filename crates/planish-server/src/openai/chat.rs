//! `POST /v1/chat/completions`

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use planish::{AutoTokenizer, Call, Conversation, Request, TextAnswer, TokenLogprobs, ToolChoice};
use serde_json::{Map, Value, json};

use super::sampling::Asked;
use super::stream::Chunks;
use super::{fields, finish_reason, format, logprobs, messages, reply, stream, tell_ignored, tools, usage};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::replies::{Replies, Reply, Usage};
use crate::state::{State, now};
use crate::status::check_model;

pub(crate) async fn chat(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let mut fields = fields(&state, body).await?;
    let Prepared {
        requests,
        asked,
        likeliest,
    } = prepare(&state, &mut fields).await?;
    let ignored = fields.names_left();
    let mut replies = Replies::ask(&state, requests, false, asked.answers)?;
    let head = Head {
        id: state.id("chatcmpl"),
        created: now(),
        model: state.options.model.clone(),
        usage: asked.usage,
        likely: likeliest.map(|_| vec![Vec::new(); asked.answers]),
        calls: vec![0; asked.answers],
        answers: asked.answers,
        state: Arc::clone(&state),
    };
    if asked.stream {
        return Ok(tell_ignored(stream::respond(replies, head), &ignored));
    }
    let answers = replies.whole().await?;
    let tokenizer = tokenizer(&state)?;
    let choices = answers.iter().enumerate().map(|(index, answer)| {
        let likely = likeliest.map(|_| logprobs::content(tokenizer, &answer.answer.logprobs));
        choice(&state, index, answer, likely)
    });
    let choices: Vec<Value> = choices.collect();
    let mut body = head.object("chat.completion", choices);
    body["usage"] = usage(&replies.usage);
    Ok(reply(body, &ignored))
}

/// A conversation that can be submitted.
pub(crate) struct Prepared {
    pub requests: Vec<Request>,
    pub asked: Asked,
    /// Log probabilities are told, with so many of the likeliest tokens.
    pub likeliest: Option<usize>,
}

/// Takes the fields of a conversation: as OpenAI's clients send them, or translated to that.
pub(crate) async fn prepare(state: &Arc<State>, fields: &mut Fields) -> Result<Prepared, ApiError> {
    check_model(state, fields.text("model")?)?;
    let mut asked = Asked::take(fields, &["max_tokens", "max_completion_tokens"])?;
    let likeliest = logprobs::of_chat(fields)?;
    asked.set_logprobs(likeliest);
    let (offered, format) = (tools::take(fields)?, format::take(fields)?);
    let conversation = Conversation {
        variables: template_variables(fields)?,
        messages: messages::take(fields)?,
        tools: offered.tools,
        choice: offered.choice,
        parallel: offered.parallel,
        reasoning_budget: fields.count("reasoning_budget", 1..=u64::MAX)?,
        constraint: format.constraint,
    };
    refuse_unsupported(fields)?;
    let prepared = tokenizer(state)?.prepare(&conversation).map_err(refused)?;
    asked.set_reading(prepared.reading, prepared.constraint);
    let param = match conversation.tools.is_empty() {
        true => format.param,
        false => "tools",
    };
    match asked.check_form(state, param).await {
        // What a model calls by itself need not follow what no grammar says.
        Err(_) if conversation.choice == ToolChoice::Auto && conversation.constraint.is_none() => asked.drop_form(),
        checked => checked?,
    }
    let requests = asked.requests(state, vec![prepared.prompt]);
    Ok(Prepared {
        requests,
        asked,
        likeliest,
    })
}

fn tokenizer(state: &State) -> Result<&AutoTokenizer, ApiError> {
    state
        .engine
        .model()
        .tokenizer()
        .map_err(|error| ApiError::failed(&error))
}

/// Variables of the template that a client sets.
fn template_variables(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut variables = fields.object("chat_template_kwargs")?.unwrap_or_default();
    if let Some(effort) = fields.text("reasoning_effort")? {
        if effort == "none" {
            variables.entry("enable_thinking").or_insert(Value::Bool(false));
        }
        variables.insert("reasoning_effort".to_owned(), Value::from(effort));
    }
    Ok(variables)
}

/// A conversation that cannot be prepared, by the field that it is about.
fn refused(error: planish::Error) -> ApiError {
    let param = match &error {
        planish::Error::Config { key, .. } => key.clone(),
        _ => "messages".to_owned(),
    };
    ApiError::field(param, error.to_string())
}

/// What is understood and not done, unless it asks for nothing.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    for (name, idle) in [
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

fn choice(state: &State, index: usize, answer: &TextAnswer, likely: Option<Value>) -> Value {
    let mut message = json!({"role": "assistant", "content": answer.text});
    if !answer.calls.is_empty() {
        let call = |call: &Call| {
            let function = json!({"name": call.name, "arguments": call.arguments});
            json!({"id": state.call_id(), "type": "function", "function": function})
        };
        message["tool_calls"] = answer.calls.iter().map(call).collect();
        if answer.text.is_empty() {
            message["content"] = Value::Null;
        }
    }
    if !answer.reasoning.is_empty() {
        message["reasoning_content"] = Value::from(answer.reasoning.as_str());
    }
    json!({
        "index": index,
        "message": message,
        "logprobs": likely,
        "finish_reason": finish_reason(answer),
    })
}

/// What all chunks of a stream have in common.
struct Head {
    id: String,
    created: u64,
    model: String,
    answers: usize,
    usage: bool,
    /// Of each answer, how likely tokens are whose text is still to be told.
    likely: Option<Vec<Vec<TokenLogprobs>>>,
    /// Of each answer, the calls that began.
    calls: Vec<usize>,
    state: Arc<State>,
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

    /// As [`Head::delta`], with what is known of tokens since the last one.
    fn likely_delta(&mut self, index: usize, delta: Value, finish: Option<&str>) -> Value {
        let mut chunk = self.delta(index, delta, finish);
        let tokens = self.likely.as_mut().map(|likely| std::mem::take(&mut likely[index]));
        if let (Some(tokens @ [_, ..]), Ok(tokenizer)) = (tokens.as_deref(), self.state.engine.model().tokenizer()) {
            chunk["choices"][0]["logprobs"] = logprobs::content(tokenizer, tokens);
        }
        chunk
    }
}

impl Chunks for Head {
    fn begin(&self) -> Vec<Value> {
        let first = |index| self.delta(index, json!({"role": "assistant", "content": ""}), None);
        (0..self.answers).map(first).collect()
    }

    fn chunk(&mut self, index: usize, reply: &Reply) -> Option<Value> {
        match reply {
            Reply::Logprobs(token) => {
                self.likely.as_mut()?[index].push(token.clone());
                None
            }
            Reply::Text(text) => Some(self.likely_delta(index, json!({"content": text}), None)),
            Reply::Reasoning(text) => Some(self.delta(index, json!({"reasoning_content": text}), None)),
            Reply::Call(name) => {
                let (id, call) = (self.state.call_id(), self.calls[index]);
                self.calls[index] += 1;
                let function = json!({"name": name, "arguments": ""});
                let call = json!({"index": call, "id": id, "type": "function", "function": function});
                Some(self.likely_delta(index, json!({"tool_calls": [call]}), None))
            }
            Reply::Arguments(text) => {
                let call = self.calls[index].saturating_sub(1);
                let call = json!({"index": call, "function": {"arguments": text}});
                Some(self.delta(index, json!({"tool_calls": [call]}), None))
            }
            Reply::Finished(answer) => {
                let reason = finish_reason(answer);
                Some(self.likely_delta(index, json!({}), Some(reason)))
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
