//! `POST /v1/responses`: OpenAI's newer way to ask, as far as it needs no memory of earlier responses. A request is translated to the
//! form of chat completions, so that both mean the same.

mod input;
mod output;
mod request;

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State as Shared;
use axum::response::Response;

use crate::error::ApiError;
use crate::events::{self, Writer};
use crate::openai::{self, chat};
use crate::replies::{Replies, Reply};
use crate::state::State;

pub(crate) async fn responses(Shared(state): Shared<Arc<State>>, body: Body) -> Result<Response, ApiError> {
    let fields = openai::fields(&state, body).await?;
    let mut asked = request::translate(fields)?;
    let prepared = chat::prepare(&state, &mut asked.chat).await;
    let prepared = prepared.map_err(|error| {
        error
            .renamed("response_format.json_schema", "text.format")
            .renamed("response_format", "text.format")
    })?;
    let mut replies = Replies::ask(&state, prepared.requests, false, 1)?;
    let mut stream = output::Stream::new(&state, asked.told);
    if asked.stream {
        return Ok(openai::tell_ignored(events::respond(replies, stream), &asked.ignored));
    }
    while let Some(event) = replies.next().await {
        let (index, reply): (usize, Reply) = event?;
        stream.reply(index, &reply, &replies.usage);
    }
    Ok(openai::reply(stream.response(Some(&replies.usage)), &asked.ignored))
}
