//! A response, in events and whole.

use std::sync::Arc;

use planish::{Finish, TokenLogprobs};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::events::{Writer, named};
use crate::openai::logprobs;
use crate::replies::{Reply, Usage};
use crate::state::{State, now};

/// A response that grows.
pub(super) struct Stream {
    id: String,
    created: u64,
    state: Arc<State>,
    /// What is repeated of the request.
    told: Map<String, Value>,
    /// Items that are whole.
    output: Vec<Value>,
    open: Option<Open>,
    /// How likely tokens were whose text is still to be told.
    likely: Vec<TokenLogprobs>,
    status: &'static str,
    error: Value,
    events: u64,
}

/// The item that grows.
struct Open {
    kind: Kind,
    id: String,
    /// What it says, or the arguments of a call.
    text: String,
    /// Of the tokens of a message, where that was asked for.
    logprobs: Vec<Value>,
}

#[derive(Clone, PartialEq)]
enum Kind {
    Message,
    Reasoning,
    Call { name: String, call_id: String },
}

impl Kind {
    /// What the events of its text begin with.
    fn events(&self) -> &'static str {
        match self {
            Kind::Message => "output_text",
            Kind::Reasoning => "reasoning_text",
            Kind::Call { .. } => "function_call_arguments",
        }
    }
}

impl Open {
    /// The part that holds the text, unless the item holds it itself.
    fn part(&self) -> Option<Value> {
        match self.kind {
            Kind::Message => Some(json!({
                "type": "output_text", "text": self.text, "annotations": [], "logprobs": self.logprobs,
            })),
            Kind::Reasoning => Some(json!({"type": "reasoning_text", "text": self.text})),
            Kind::Call { .. } => None,
        }
    }

    fn item(&self, status: &str, content: Value) -> Value {
        let id = &self.id;
        match &self.kind {
            Kind::Message => {
                json!({"id": id, "type": "message", "status": status, "role": "assistant", "content": content})
            }
            Kind::Reasoning => {
                json!({"id": id, "type": "reasoning", "status": status, "summary": [], "content": content})
            }
            Kind::Call { name, call_id } => json!({
                "id": id, "type": "function_call", "status": status, "call_id": call_id, "name": name, "arguments": self.text,
            }),
        }
    }

    /// Where it stands, for its events.
    fn place(&self, index: usize) -> Value {
        let mut place = json!({"item_id": self.id, "output_index": index});
        if self.part().is_some() {
            place["content_index"] = json!(0);
        }
        place
    }
}

impl Stream {
    pub(super) fn new(state: &Arc<State>, told: Map<String, Value>) -> Stream {
        Stream {
            id: state.id("resp"),
            created: now(),
            state: Arc::clone(state),
            told,
            output: Vec::new(),
            open: None,
            likely: Vec::new(),
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
                "output_tokens_details": {"reasoning_tokens": tokens.reasoning},
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
            "model": self.state.options.model,
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
    fn piece(&mut self, kind: &Kind, piece: &str) -> String {
        let is_open = self.open.as_ref().is_some_and(|open| open.kind == *kind);
        let begun = if is_open {
            String::new()
        } else {
            self.begin_item(kind.clone())
        };
        begun + &self.more(piece)
    }

    /// How likely the tokens were that were told of since the last text.
    fn take_likely(&mut self) -> Vec<Value> {
        let tokens = std::mem::take(&mut self.likely);
        match self.state.engine.model().tokenizer() {
            Ok(tokenizer) if !tokens.is_empty() => logprobs::entries(tokenizer, &tokens),
            _ => Vec::new(),
        }
    }

    /// More of the open item.
    fn more(&mut self, piece: &str) -> String {
        let (index, likely) = (self.output.len(), self.take_likely());
        let Some(open) = &mut self.open else {
            return String::new();
        };
        open.text.push_str(piece);
        let mut fields = open.place(index);
        if open.kind == Kind::Message {
            open.logprobs.extend_from_slice(&likely);
            fields["logprobs"] = Value::from(likely);
        }
        fields["delta"] = Value::from(piece);
        let kind = format!("{}.delta", open.kind.events());
        self.event(&kind, fields)
    }

    /// Begins an item after whatever is open.
    fn begin_item(&mut self, kind: Kind) -> String {
        let mut text = self.close("completed");
        let index = self.output.len();
        let prefix = match kind {
            Kind::Message => "msg",
            Kind::Reasoning => "rs",
            Kind::Call { .. } => "fc",
        };
        let open = Open {
            kind,
            id: format!("{prefix}-{}-{index}", self.id),
            text: String::new(),
            logprobs: Vec::new(),
        };
        let item = open.item("in_progress", json!([]));
        text += &self.event("output_item.added", json!({"output_index": index, "item": item}));
        if let Some(part) = open.part() {
            let fields = json!({"item_id": open.id, "output_index": index, "content_index": 0, "part": part});
            text += &self.event("content_part.added", fields);
        }
        self.open = Some(open);
        text
    }

    /// Ends the open item.
    fn close(&mut self, status: &str) -> String {
        let Some(mut open) = self.open.take() else {
            return String::new();
        };
        let index = self.output.len();
        let mut done = open.place(index);
        if open.kind == Kind::Message {
            // The last tokens may have had no text.
            open.logprobs.extend(self.take_likely());
            done["logprobs"] = Value::from(open.logprobs.clone());
        }
        let name = if matches!(open.kind, Kind::Call { .. }) {
            "arguments"
        } else {
            "text"
        };
        done[name] = Value::from(open.text.as_str());
        if let Kind::Call { name, .. } = &open.kind {
            done["name"] = Value::from(name.as_str());
        }
        let mut text = self.event(&format!("{}.done", open.kind.events()), done);
        let part = open.part();
        if let Some(part) = &part {
            let fields = json!({"item_id": open.id, "output_index": index, "content_index": 0, "part": part});
            text += &self.event("content_part.done", fields);
        }
        let item = open.item(status, part.into_iter().collect());
        self.output.push(item.clone());
        text + &self.event("output_item.done", json!({"output_index": index, "item": item}))
    }
}

impl Writer for Stream {
    fn begin(&mut self) -> String {
        self.of_response("created", None) + &self.of_response("in_progress", None)
    }

    fn reply(&mut self, _: usize, reply: &Reply, _: &Usage) -> String {
        match reply {
            Reply::Text(piece) if piece.is_empty() => String::new(),
            Reply::Text(piece) => self.piece(&Kind::Message, piece),
            Reply::Reasoning(piece) => self.piece(&Kind::Reasoning, piece),
            Reply::Finished(answer) => {
                self.status = match answer.answer.finish {
                    Finish::MaxNewTokens | Finish::ContextFull | Finish::MaxTime => "incomplete",
                    Finish::EndToken | Finish::StopString | Finish::Interrupted => "completed",
                };
                self.close(self.status)
            }
            Reply::Call(name) => {
                // What calls are written with is no text.
                self.likely.clear();
                let (name, call_id) = (name.clone(), format!("call_{}", self.state.call_id()));
                self.begin_item(Kind::Call { name, call_id })
            }
            Reply::Arguments(piece) => self.more(piece),
            Reply::Logprobs(token) => {
                self.likely.push(token.clone());
                String::new()
            }
            Reply::Begun { .. } | Reply::Failed(_) => String::new(),
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
