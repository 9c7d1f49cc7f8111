//! Answers as messages of Anthropic's, whole and in events.

use planish::{Finish, TextAnswer};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::events::{Writer, named};
use crate::replies::{Reply, Usage};

/// What all that is told of an answer has in common.
pub(super) struct Head {
    pub id: String,
    pub model: String,
    pub thoughts: bool,
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
            ending = (Some(stop_reason(answer)), answer.stop.as_deref());
        }
        self.message(content, ending, tokens)
    }

    fn message(&self, content: Vec<Value>, (reason, stop): (Option<&str>, Option<&str>), tokens: &Usage) -> Value {
        json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
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

    /// More of a block, which is begun if another is open.
    fn piece(&mut self, kind: &'static str, piece: &str) -> String {
        let mut text = String::new();
        if self.open != Some(kind) {
            text += &self.close();
            self.open = Some(kind);
            let block = match kind {
                "thinking" => json!({"type": kind, "thinking": "", "signature": ""}),
                _ => json!({"type": kind, "text": ""}),
            };
            text += &named(&json!({"type": "content_block_start", "index": self.closed, "content_block": block}));
        }
        let delta = match kind {
            "thinking" => json!({"type": "thinking_delta", "thinking": piece}),
            _ => json!({"type": "text_delta", "text": piece}),
        };
        text + &named(&json!({"type": "content_block_delta", "index": self.closed, "delta": delta}))
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
            Reply::Reasoning(piece) => self.piece("thinking", piece),
            Reply::Text(piece) if piece.is_empty() => String::new(),
            Reply::Text(piece) => self.piece("text", piece),
            Reply::Finished(answer) => {
                let delta = json!({"stop_reason": stop_reason(answer), "stop_sequence": answer.stop});
                let last = json!({"type": "message_delta", "delta": delta, "usage": usage(tokens)});
                self.close() + &named(&last)
            }
            Reply::Logprobs(_) | Reply::Call(_) | Reply::Arguments(_) | Reply::Failed(_) => String::new(),
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
