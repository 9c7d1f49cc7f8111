//! OpenAI's way to ask and to answer.

pub(crate) mod chat;
pub(crate) mod completions;
mod messages;
pub(crate) mod sampling;
mod stream;
pub(crate) mod tokens;

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use planish::Finish;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::replies::Usage;
use crate::state::State;

/// For the body of a request to come.
const BODY_TIME: Duration = Duration::from_secs(60);

/// The fields of a request's body.
pub(crate) async fn fields(state: &Arc<State>, body: Body) -> Result<Fields, ApiError> {
    let most = state.options.most_body;
    let bytes = match tokio::time::timeout(BODY_TIME, to_bytes(body, most)).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) if is_too_long(&error) => {
            let message = format!("the body is longer than {most} bytes");
            return Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, message));
        }
        Ok(Err(error)) => return Err(ApiError::new(StatusCode::BAD_REQUEST, error.to_string())),
        Err(_) => {
            return Err(ApiError::new(
                StatusCode::REQUEST_TIMEOUT,
                "the body did not come in time",
            ));
        }
    };
    Fields::parse(&bytes)
}

fn is_too_long(error: &axum::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
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

fn finish_reason(finish: Finish) -> &'static str {
    match finish {
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
    })
}
