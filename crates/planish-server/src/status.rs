//! Routes about the server itself: health, metrics, models.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State as Shared};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::anthropic;
use crate::error::ApiError;
use crate::state::State;

/// Work waits and no pass ended for so long: something is wrong.
const STUCK: Duration = Duration::from_secs(30);

/// Answered by the threads of HTTP, so that it tells the truth when the engine does not.
pub(crate) async fn health(Shared(state): Shared<Arc<State>>) -> Response {
    let status = state.engine.status();
    let word = match status.stuck > STUCK {
        true => "stuck",
        false if state.engine.is_closed() => "draining",
        false => "ok",
    };
    let code = match word {
        "ok" => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let body = json!({
        "status": word,
        "model": state.options.model,
        "running": status.running,
        "waiting": status.waiting,
    });
    (code, Json(body)).into_response()
}

pub(crate) async fn metrics(Shared(state): Shared<Arc<State>>) -> Response {
    let text = state.metrics.text(&state.engine.status());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

fn card(state: &State) -> Value {
    let model = state.engine.model();
    json!({
        "id": state.options.model,
        "object": "model",
        "created": state.started,
        "owned_by": "planish",
        "context_length": model.architecture().context,
        "chat_template": model.tokenizer().is_ok_and(|tokenizer| tokenizer.has_chat_template()),
    })
}

/// As Anthropic's clients read it.
fn anthropic_card(state: &State) -> Value {
    let context = state.engine.model().architecture().context;
    let started = i64::try_from(state.started).ok();
    let created = started.and_then(|started| jiff::Timestamp::from_second(started).ok());
    json!({
        "type": "model",
        "id": state.options.model,
        "display_name": state.options.model,
        "created_at": created.unwrap_or_default().to_string(),
        "lifecycle": "active",
        "max_input_tokens": context,
        "max_tokens": context,
    })
}

pub(crate) async fn models(Shared(state): Shared<Arc<State>>, headers: HeaderMap) -> Json<Value> {
    let id = &state.options.model;
    Json(match anthropic::is_client("", &headers) {
        true => json!({"data": [anthropic_card(&state)], "has_more": false, "first_id": id, "last_id": id}),
        false => json!({"object": "list", "data": [card(&state)]}),
    })
}

pub(crate) async fn model(
    Shared(state): Shared<Arc<State>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    check_model(&state, Some(id))?;
    Ok(Json(match anthropic::is_client("", &headers) {
        true => anthropic_card(&state),
        false => card(&state),
    }))
}

/// The model that a request names must be the one that is served.
pub(crate) fn check_model(state: &State, asked: Option<String>) -> Result<(), ApiError> {
    match asked {
        Some(asked) if asked != state.options.model => Err(ApiError {
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..ApiError::new(
                StatusCode::NOT_FOUND,
                format!("the model {asked:?} is not served here; {:?} is", state.options.model),
            )
        }),
        _ => Ok(()),
    }
}
