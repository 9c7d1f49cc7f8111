//! A response, in events and whole.

use planish::Finish;
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::events::{Writer, named};
use crate::replies::{Reply, Usage};
use crate::state::now;

/// A response that grows.
pub(super) struct Stream {
    id: String,
    created: u64,
    model: String,
    /// What is repeated of the request.
    told: Map<String, Value>,
    /// Items that are whole.
    output: Vec<Value>,
    open: Option<Open>,
    status: &'static str,
    error: Value,
    events: u64,
}

/// The item that grows.
struct Open {
    kind: Kind,
    id: String,
    text: String,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Message,
    Reasoning,
}

impl Kind {
    /// The type of its part, and what its events begin with.
    fn part(self) -> &'static str {
        match self {
            Kind::Message => "output_text",
            Kind::Reasoning => "reasoning_text",
        }
    }
}

impl Open {
    fn part(&self) -> Value {
        match self.kind {
            Kind::Message => json!({"type": "output_text", "text": self.text, "annotations": [], "logprobs": []}),
            Kind::Reasoning => json!({"type": "reasoning_text", "text": self.text}),
        }
    }

    fn item(&self, status: &str, content: Value) -> Value {
        match self.kind {
            Kind::Message => {
                json!({"id": self.id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Kind::Reasoning => {
                json!({"id": self.id, "type": "reasoning", "status": status, "summary": [], "content": content})
            }
        }
    }
}

impl Stream {
    pub(super) fn new(id: String, model: &str, told: Map<String, Value>) -> Stream {
        Stream {
            id,
            created: now(),
            model: model.to_owned(),
            told,
            output: Vec::new(),
            open: None,
            status: "in_progress",
            error: Value::Null,
            events: 0,
        }
    }

    /// The response as far as it is there.
    pub(super) fn response(&self, tokens: Option<&Usage>) -> Value {
        let incomplete = (self.status == "incomplete").then(|| json!({"reason": "max_output_tokens"}));
        let usage = tokens.map(|tokens| {
            json!({
                "input_tokens": tokens.prompt,
                "input_tokens_details": {"cached_tokens": tokens.cached, "cache_write_tokens": 0},
                "output_tokens": tokens.answers,
                "total_tokens": tokens.prompt + tokens.answers,
            })
        });
        let mut response = json!({
            "id": self.id,
            "object": "response",
            "created_at": self.created,
            "status": self.status,
            "background": false,
            "error": self.error,
            "incomplete_details": incomplete,
            "model": self.model,
            "output": self.output,
            "previous_response_id": null,
            "store": false,
            "truncation": "disabled",
            "usage": usage,
        });
        for (name, value) in &self.told {
            response[name] = value.clone();
        }
        response
    }

    fn event(&mut self, kind: &str, mut fields: Value) -> String {
        fields["type"] = Value::from(format!("response.{kind}"));
        fields["sequence_number"] = Value::from(self.events);
        self.events += 1;
        named(&fields)
    }

    fn of_response(&mut self, kind: &str, tokens: Option<&Usage>) -> String {
        let response = self.response(tokens);
        self.event(kind, json!({"response": response}))
    }

    /// More of an item, which is begun if another is open.
    fn piece(&mut self, kind: Kind, piece: &str) -> String {
        let index = self.output.len();
        let mut text = String::new();
        if self.open.as_ref().is_none_or(|open| open.kind != kind) {
            text += &self.close("completed");
            return text + &self.begin_item(kind) + &self.piece(kind, piece);
        }
        if let Some(open) = &mut self.open {
            open.text.push_str(piece);
            let mut fields = json!({"item_id": open.id, "output_index": index, "content_index": 0, "delta": piece});
            if kind == Kind::Message {
                fields["logprobs"] = json!([]);
            }
            text += &self.event(&format!("{}.delta", kind.part()), fields);
        }
        text
    }

    fn begin_item(&mut self, kind: Kind) -> String {
        let index = self.output.len();
        let prefix = if kind == Kind::Message { "msg" } else { "rs" };
        let open = Open {
            kind,
            id: format!("{prefix}-{}-{index}", self.id),
            text: String::new(),
        };
        let item = open.item("in_progress", json!([]));
        let part = json!({"item_id": open.id, "output_index": index, "content_index": 0, "part": open.part()});
        self.open = Some(open);
        self.event("output_item.added", json!({"output_index": index, "item": item}))
            + &self.event("content_part.added", part)
    }

    /// Ends the open item.
    fn close(&mut self, status: &str) -> String {
        let Some(open) = self.open.take() else {
            return String::new();
        };
        let index = self.output.len();
        let place = json!({"item_id": open.id, "output_index": index, "content_index": 0});
        let (mut done, mut part) = (place.clone(), place);
        done["text"] = Value::from(open.text.as_str());
        if open.kind == Kind::Message {
            done["logprobs"] = json!([]);
        }
        part["part"] = open.part();
        let item = open.item(status, json!([open.part()]));
        self.output.push(item.clone());
        self.event(&format!("{}.done", open.kind.part()), done)
            + &self.event("content_part.done", part)
            + &self.event("output_item.done", json!({"output_index": index, "item": item}))
    }
}

impl Writer for Stream {
    fn begin(&mut self) -> String {
        self.of_response("created", None) + &self.of_response("in_progress", None)
    }

    fn reply(&mut self, _: usize, reply: &Reply, _: &Usage) -> String {
        match reply {
            Reply::Text(piece) if piece.is_empty() => String::new(),
            Reply::Text(piece) => self.piece(Kind::Message, piece),
            Reply::Reasoning(piece) => self.piece(Kind::Reasoning, piece),
            Reply::Finished(answer) => {
                self.status = match answer.answer.finish {
                    Finish::MaxNewTokens | Finish::ContextFull | Finish::MaxTime => "incomplete",
                    Finish::EndToken | Finish::StopString | Finish::Interrupted => "completed",
                };
                self.close(self.status)
            }
            Reply::Begun { .. } | Reply::Logprobs(_) | Reply::Call(_) | Reply::Arguments(_) | Reply::Failed(_) => {
                String::new()
            }
        }
    }

    fn end(&mut self, tokens: &Usage) -> String {
        self.of_response(self.status, Some(tokens))
    }

    fn failure(&mut self, error: &ApiError) -> String {
        self.status = "failed";
        self.error = json!({"code": error.code.unwrap_or("server_error"), "message": error.message});
        self.of_response("failed", None)
    }
}
