//! `POST /v1/tokenize` and `/v1/detokenize`: texts to tokens and back.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;
use serde_json::{Value, json};

use super::{fields, messages, reply};
use crate::error::ApiError;
use crate::state::State;
use crate::status::check_model;

/// `{"prompt": text}` or `{"messages": [...]}` to `{"tokens": [...], "count": n}`.
pub(crate) async fn tokenize(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let mut fields = fields(&state, body).await?;
    check_model(&state, fields.text("model")?)?;
    let tokenizer = state
        .engine
        .model()
        .tokenizer()
        .map_err(|error| ApiError::failed(&error))?;
    let tokens = match fields.text("prompt")? {
        Some(text) => tokenizer.encode(&text),
        None => tokenizer.apply_chat_template(&messages::take(&mut fields)?),
    };
    let tokens = tokens.map_err(|error| ApiError::field("prompt", error.to_string()))?;
    Ok(reply(
        json!({"count": tokens.len(), "tokens": tokens}),
        &fields.names_left(),
    ))
}

/// `{"tokens": [...]}` to `{"prompt": text}`, special tokens left out.
pub(crate) async fn detokenize(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let mut fields = fields(&state, body).await?;
    check_model(&state, fields.text("model")?)?;
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    let tokens = fields.take("tokens");
    let tokens = tokens.as_ref().and_then(Value::as_array);
    let tokens: Option<Vec<u32>> = tokens.and_then(|list| list.iter().map(token).collect());
    let tokens = tokens.ok_or_else(|| ApiError::field("tokens", "tokens must be a list of tokens"))?;
    let tokenizer = state
        .engine
        .model()
        .tokenizer()
        .map_err(|error| ApiError::failed(&error))?;
    let text = tokenizer
        .decode(&tokens)
        .map_err(|error| ApiError::field("tokens", error.to_string()))?;
    Ok(reply(json!({"prompt": text}), &fields.names_left()))
}
