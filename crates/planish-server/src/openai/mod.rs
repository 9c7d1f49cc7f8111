//! OpenAI's way to ask and to answer.

pub(crate) mod chat;
pub(crate) mod completions;
mod format;
pub(crate) mod logprobs;
mod messages;
pub(crate) mod sampling;
mod stream;
pub(crate) mod tokens;
mod tools;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use http_body_util::BodyExt;
use planish::{Finish, TextAnswer};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::replies::Usage;
use crate::state::State;

/// For the body of a request to come.
const BODY_TIME: Duration = Duration::from_secs(60);
/// Times as long as a body may be, one is read that is refused.
const LONGER: usize = 4;

/// The fields of a request's body.
pub(crate) async fn fields(state: &Arc<State>, body: Body) -> Result<Fields, ApiError> {
    let most = state.options.most_body;
    match tokio::time::timeout(BODY_TIME, bytes_of(body, most)).await {
        Ok(Ok(Some(bytes))) => Fields::parse(&bytes),
        Ok(Ok(None)) => {
            let message = format!("the body is longer than {most} bytes");
            Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message))
        }
        Ok(Err(error)) => Err(ApiError::new(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => Err(ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not come in time",
        )),
    }
}

/// A body of at most so many bytes. One that is somewhat longer is read to its end: a client that still writes when its connection
/// is closed never sees why.
async fn bytes_of(mut body: Body, most: usize) -> Result<Option<Vec<u8>>, axum::Error> {
    let (mut bytes, mut length) = (Vec::new(), 0usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        length = length.saturating_add(data.len());
        if length <= most {
            bytes.extend_from_slice(&data);
        } else if length > most.saturating_mul(LONGER) {
            break;
        }
    }
    Ok((length <= most).then_some(bytes))
}

/// A JSON answer, which names the fields of the request that nobody knows.
pub(crate) fn reply(body: Value, ignored: &[String]) -> Response {
    tell_ignored(Json(body).into_response(), ignored)
}

pub(crate) fn tell_ignored(mut response: Response, ignored: &[String]) -> Response {
    let names: String = ignored.join(", ").escape_default().collect();
    if let Ok(names) = HeaderValue::try_from(names)
        && !ignored.is_empty()
    {
        response.headers_mut().insert("x-planish-ignored", names);
    }
    response
}

fn finish_reason(answer: &TextAnswer) -> &'static str {
    match answer.answer.finish {
        Finish::EndToken if !answer.calls.is_empty() => "tool_calls",
        Finish::EndToken | Finish::StopString | Finish::Interrupted => "stop",
        Finish::MaxNewTokens | Finish::ContextFull | Finish::MaxTime => "length",
    }
}

fn usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt,
        "completion_tokens": usage.answers,
        "total_tokens": usage.prompt + usage.answers,
        "prompt_tokens_details": {"cached_tokens": usage.cached},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}
