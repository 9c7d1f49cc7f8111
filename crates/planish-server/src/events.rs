//! Server-sent events: answers as they come.

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

/// Silence after which the client is told that the connection lives.
const SILENCE: Duration = Duration::from_secs(15);

/// Writes the events of a stream. What it returns is sent as it is; nothing is sent of an empty text.
pub(crate) trait Writer: Send + 'static {
    /// Before all others.
    fn begin(&mut self) -> String;

    /// What an answer's reply is told by.
    fn reply(&mut self, index: usize, reply: &Reply, usage: &Usage) -> String;

    /// After the last reply.
    fn end(&mut self, usage: &Usage) -> String;

    /// In place of all that would follow.
    fn failure(&mut self, error: &ApiError) -> String;

    /// Nothing came for a while.
    fn silence(&mut self) -> String {
        ": waiting\n\n".to_owned()
    }
}

enum Stage {
    Begin,
    Going,
    Over,
}

/// The events of all answers as they come.
pub(crate) fn respond(replies: Replies, writer: impl Writer) -> Response {
    let events = stream::unfold(
        (replies, writer, Stage::Begin),
        async |(mut replies, mut writer, stage)| {
            let (text, stage) = match stage {
                Stage::Begin => (writer.begin(), Stage::Going),
                Stage::Going => next(&mut replies, &mut writer).await,
                Stage::Over => return None,
            };
            Some((Ok::<Bytes, Infallible>(Bytes::from(text)), (replies, writer, stage)))
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

async fn next(replies: &mut Replies, writer: &mut impl Writer) -> (String, Stage) {
    loop {
        return match replies.next_within(SILENCE).await {
            Err(()) => (writer.silence(), Stage::Going),
            Ok(Some(Ok((index, reply)))) => match writer.reply(index, &reply, &replies.usage) {
                text if text.is_empty() => continue,
                text => (text, Stage::Going),
            },
            Ok(Some(Err(error))) => (writer.failure(&error), Stage::Over),
            Ok(None) => (writer.end(&replies.usage), Stage::Over),
        };
    }
}

/// An event that says its type in a line of its own, too.
pub(crate) fn named(data: &Value) -> String {
    let kind = data["type"].as_str().unwrap_or_default();
    format!("event: {kind}\ndata: {data}\n\n")
}
