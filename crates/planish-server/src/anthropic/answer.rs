//! Answers as messages of Anthropic's, whole and in events.

use std::sync::Arc;

use planish::{Finish, TextAnswer};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::events::{Writer, named};
use crate::replies::{Reply, Usage};
use crate::state::State;

/// What all that is told of an answer has in common.
pub(super) struct Head {
    pub id: String,
    pub thoughts: bool,
    pub state: Arc<State>,
}

impl Head {
    pub(super) fn whole(&self, answers: &[TextAnswer], tokens: &Usage) -> Value {
        let mut content = Vec::new();
        let mut ending = (None, None);
        for answer in answers {
            if self.thoughts && !answer.reasoning.is_empty() {
                content.push(json!({"type": "thinking", "thinking": answer.reasoning, "signature": ""}));
            }
            if !answer.text.is_empty() {
                content.push(json!({"type": "text", "text": answer.text}));
            }
            for call in &answer.calls {
                // A call that was cut off has no arguments that could be read.
                let input = serde_json::from_str(&call.arguments).unwrap_or(Value::Object(Map::new()));
                content.push(json!({"type": "tool_use", "id": self.call_id(), "name": call.name, "input": input}));
            }
            ending = (Some(stop_reason(answer)), answer.stop.as_deref());
        }
        self.message(content, ending, tokens)
    }

    /// As the client's own checks want it.
    fn call_id(&self) -> String {
        format!("toolu_{}", self.state.call_id())
    }

    fn message(&self, content: Vec<Value>, (reason, stop): (Option<&str>, Option<&str>), tokens: &Usage) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.state.options.model,
            "content": content,
            "stop_reason": reason,
            "stop_sequence": stop,
            "usage": usage(tokens),
        })
    }
}

/// Tokens of a prompt that were remembered are counted apart.
fn usage(tokens: &Usage) -> Value {
    json!({
        "input_tokens": tokens.prompt - tokens.cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": tokens.cached,
        "output_tokens": tokens.answers,
    })
}

fn stop_reason(answer: &TextAnswer) -> &'static str {
    match answer.answer.finish {
        Finish::EndToken if !answer.calls.is_empty() => "tool_use",
        Finish::EndToken | Finish::Interrupted => "end_turn",
        Finish::StopString => "stop_sequence",
        Finish::MaxNewTokens | Finish::MaxTime => "max_tokens",
        Finish::ContextFull => "model_context_window_exceeded",
    }
}

/// The events of one answer.
pub(super) struct Stream {
    head: Head,
    /// The kind of the block that is open, and the number of those before it.
    open: Option<&'static str>,
    closed: usize,
}

impl Stream {
    pub(super) fn new(head: Head) -> Stream {
        Stream {
            head,
            open: None,
            closed: 0,
        }
    }

    /// Ends the open block.
    fn close(&mut self) -> String {
        let Some(kind) = self.open.take() else {
            return String::new();
        };
        let mut text = String::new();
        if kind == "thinking" {
            let signature = json!({"type": "signature_delta", "signature": ""});
            text += &named(&json!({"type": "content_block_delta", "index": self.closed, "delta": signature}));
        }
        text += &named(&json!({"type": "content_block_stop", "index": self.closed}));
        self.closed += 1;
        text
    }

    /// Begins a block after whatever is open.
    fn begin_block(&mut self, kind: &'static str, block: Value) -> String {
        let closed = self.close();
        self.open = Some(kind);
        closed + &named(&json!({"type": "content_block_start", "index": self.closed, "content_block": block}))
    }

    fn delta(&self, delta: Value) -> String {
        named(&json!({"type": "content_block_delta", "index": self.closed, "delta": delta}))
    }

    fn text(&mut self, piece: &str) -> String {
        let begun = match self.open {
            Some("text") => String::new(),
            _ => self.begin_block("text", json!({"type": "text", "text": ""})),
        };
        begun + &self.delta(json!({"type": "text_delta", "text": piece}))
    }

    fn thought(&mut self, piece: &str) -> String {
        let begun = match self.open {
            Some("thinking") => String::new(),
            _ => self.begin_block("thinking", json!({"type": "thinking", "thinking": "", "signature": ""})),
        };
        begun + &self.delta(json!({"type": "thinking_delta", "thinking": piece}))
    }
}

impl Writer for Stream {
    fn begin(&mut self) -> String {
        String::new()
    }

    fn reply(&mut self, _: usize, reply: &Reply, tokens: &Usage) -> String {
        match reply {
            // Only now it is known what was remembered of the prompt.
            Reply::Begun { .. } => {
                let message = self.head.message(Vec::new(), (None, None), tokens);
                named(&json!({"type": "message_start", "message": message}))
            }
            Reply::Reasoning(_) if !self.head.thoughts => String::new(),
            Reply::Reasoning(piece) => self.thought(piece),
            Reply::Text(piece) if piece.is_empty() => String::new(),
            Reply::Text(piece) => self.text(piece),
            Reply::Call(name) => {
                let block = json!({"type": "tool_use", "id": self.head.call_id(), "name": name, "input": {}});
                self.begin_block("tool_use", block)
            }
            Reply::Arguments(piece) => self.delta(json!({"type": "input_json_delta", "partial_json": piece})),
            Reply::Finished(answer) => {
                let delta = json!({"stop_reason": stop_reason(answer), "stop_sequence": answer.stop});
                let last = json!({"type": "message_delta", "delta": delta, "usage": usage(tokens)});
                self.close() + &named(&last)
            }
            Reply::Logprobs(_) | Reply::Failed(_) => String::new(),
        }
    }

    fn end(&mut self, _: &Usage) -> String {
        named(&json!({"type": "message_stop"}))
    }

    fn failure(&mut self, error: &ApiError) -> String {
        named(&error.anthropic())
    }

    fn silence(&mut self) -> String {
        named(&json!({"type": "ping"}))
    }
}
