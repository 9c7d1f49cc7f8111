//! Server-sent events: a line `data: {json}` and an empty line each.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use serde_json::Value;

use crate::error::ApiError;
use crate::replies::{Replies, Reply, Usage};

/// Silence after which a comment says that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

/// How the events of a kind of answer look.
pub(super) trait Chunks: Send + Sync + 'static {
    /// Events before all others.
    fn begin(&self) -> Vec<Value>;

    /// What an answer's reply is told by, if it is.
    fn chunk(&mut self, index: usize, reply: &Reply) -> Option<Value>;

    /// The event after all others, before the end.
    fn usage(&self, usage: &Usage) -> Option<Value>;
}

enum Stage {
    Begin,
    Going,
    Over,
}

/// The events of all answers as they come. After an error nothing follows, not even the usual end.
pub(super) fn respond(replies: Replies, chunks: impl Chunks) -> Response {
    let events = stream::unfold(
        (replies, chunks, Stage::Begin),
        async |(mut replies, mut chunks, stage)| {
            let (text, stage) = match stage {
                Stage::Begin => (chunks.begin().iter().map(event).collect(), Stage::Going),
                Stage::Going => next(&mut replies, &mut chunks).await,
                Stage::Over => return None,
            };
            Some((Ok::<Bytes, Infallible>(Bytes::from(text)), (replies, chunks, stage)))
        },
    );
    let headers = [
        (header::CONTENT_TYPE.as_str(), "text/event-stream"),
        (header::CACHE_CONTROL.as_str(), "no-cache"),
        // Proxies must not gather pieces.
        ("x-accel-buffering", "no"),
    ];
    (headers, Body::from_stream(events)).into_response()
}

async fn next(replies: &mut Replies, chunks: &mut impl Chunks) -> (String, Stage) {
    loop {
        return match replies.next_within(SILENCE).await {
            Err(()) => (": waiting\n\n".to_owned(), Stage::Going),
            Ok(Some(Ok((index, reply)))) => match chunks.chunk(index, &reply) {
                Some(chunk) => (event(&chunk), Stage::Going),
                None => continue,
            },
            Ok(Some(Err(error))) => (failure(&error), Stage::Over),
            Ok(None) => {
                let mut text = chunks.usage(&replies.usage).as_ref().map(event).unwrap_or_default();
                text.push_str("data: [DONE]\n\n");
                (text, Stage::Over)
            }
        };
    }
}

fn event(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}

fn failure(error: &ApiError) -> String {
    event(&error.body())
}
