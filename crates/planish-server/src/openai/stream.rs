//! Streams of OpenAI's older kind: a line `data: {json}` and an empty line each, `data: [DONE]` at the end.

use axum::response::Response;
use serde_json::Value;

use crate::error::ApiError;
use crate::events::{self, Writer};
use crate::replies::{Replies, Reply, Usage};

/// How the events of a kind of answer look.
pub(super) trait Chunks: Send + Sync + 'static {
    /// Events before all others.
    fn begin(&self) -> Vec<Value>;

    /// What an answer's reply is told by, if it is.
    fn chunk(&mut self, index: usize, reply: &Reply) -> Option<Value>;

    /// The event after all others, before the end.
    fn usage(&self, usage: &Usage) -> Option<Value>;
}

/// The events of all answers as they come. After an error nothing follows, not even the usual end.
pub(super) fn respond(replies: Replies, chunks: impl Chunks) -> Response {
    events::respond(replies, Lines(chunks))
}

struct Lines<C>(C);

impl<C: Chunks> Writer for Lines<C> {
    fn begin(&mut self) -> String {
        self.0.begin().iter().map(event).collect()
    }

    fn reply(&mut self, index: usize, reply: &Reply, _: &Usage) -> String {
        self.0.chunk(index, reply).as_ref().map(event).unwrap_or_default()
    }

    fn end(&mut self, usage: &Usage) -> String {
        let mut text = self.0.usage(usage).as_ref().map(event).unwrap_or_default();
        text.push_str("data: [DONE]\n\n");
        text
    }

    fn failure(&mut self, error: &ApiError) -> String {
        event(&error.body())
    }
}

fn event(chunk: &Value) -> String {
    format!("data: {chunk}\n\n")
}
