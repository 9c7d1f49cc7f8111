//! Anthropic's way to ask and to answer. A request is translated to OpenAI's form, so that both mean the same.

mod answer;
mod messages;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::Response;
use serde_json::json;

use crate::error::ApiError;
use crate::events;
use crate::fields::Fields;
use crate::openai::chat::Prepared;
use crate::openai::{self, chat};
use crate::replies::Replies;
use crate::state::State;

/// Whether a client reads errors and lists as Anthropic writes them.
pub(crate) fn is_client(path: &str, headers: &HeaderMap) -> bool {
    let own = |path: &str| path == "/v1/messages" || path.starts_with("/v1/messages/");
    own(path) || headers.contains_key("anthropic-version")
}

/// As a chat completion. An error names the field that the client sent.
async fn prepare(state: &Arc<State>, chat: &mut Fields) -> Result<Prepared, ApiError> {
    let prepared = chat::prepare(state, chat).await;
    prepared.map_err(|error| {
        error
            .renamed("reasoning_budget", "thinking.budget_tokens")
            .renamed("response_format.json_schema", "output_config.format")
            .renamed("response_format", "output_config.format")
    })
}

/// `POST /v1/messages`
pub(crate) async fn messages(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let fields = openai::fields(&state, body).await?;
    let mut asked = request::translate(fields, true)?;
    let prepared = prepare(&state, &mut asked.chat).await?;
    let mut replies = Replies::ask(&state, prepared.requests, false, 1)?;
    let head = answer::Head {
        id: state.id("msg"),
        thoughts: asked.thoughts,
        state: Arc::clone(&state),
    };
    if asked.stream {
        let response = events::respond(replies, answer::Stream::new(head));
        return Ok(openai::tell_ignored(response, &asked.ignored));
    }
    let answers = replies.whole().await?;
    let body = head.whole(&answers, &replies.usage);
    Ok(openai::reply(body, &asked.ignored))
}

/// `POST /v1/messages/count_tokens`
pub(crate) async fn count_tokens(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let fields = openai::fields(&state, body).await?;
    let mut asked = request::translate(fields, false)?;
    let prepared = prepare(&state, &mut asked.chat).await?;
    let tokens = prepared.requests.first().map_or(0, |request| request.prompt.len());
    Ok(openai::reply(json!({"input_tokens": tokens}), &asked.ignored))
}
