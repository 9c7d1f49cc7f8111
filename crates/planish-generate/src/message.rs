//! One message of a conversation, as chat templates see it.

use serde_json::{Map, Value};

/// Who says what; further fields (`tool_calls`, `name`, `reasoning_content`) as the template knows them.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    fields: Map<String, Value>,
}

/// Names under which a message's reasoning goes; templates read the first, and `thinking` in gpt-oss.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

impl Message {
    /// A message of this role (`system`, `user`, `assistant`, `tool`).
    pub fn new(role: &str, content: impl Into<String>) -> Message {
        let mut fields = Map::new();
        fields.insert("role".into(), Value::from(role));
        fields.insert("content".into(), Value::from(content.into()));
        Message { fields }
    }

    /// What the model answered, with what it thought before, if anything.
    pub fn answer(text: impl Into<String>, reasoning: &str) -> Message {
        let mut message = Message::new("assistant", text);
        if !reasoning.is_empty() {
            message
                .fields
                .insert("reasoning_content".into(), Value::from(reasoning));
        }
        message
    }

    /// A message with any fields.
    pub fn from_fields(fields: Map<String, Value>) -> Message {
        Message { fields }
    }

    /// The role, empty if it has none.
    pub fn role(&self) -> &str {
        self.fields.get("role").and_then(Value::as_str).unwrap_or_default()
    }

    /// The content if it is text.
    pub fn content(&self) -> Option<&str> {
        self.fields.get("content").and_then(Value::as_str)
    }

    /// The same with the arguments of calls as texts of JSON.
    pub fn with_written_arguments(&self) -> Message {
        self.map_arguments(&|arguments| match arguments {
            Value::String(_) => arguments.clone(),
            other => Value::from(other.to_string()),
        })
    }

    /// The same with the arguments of calls as objects, where their texts are JSON objects.
    pub fn with_read_arguments(&self) -> Message {
        self.map_arguments(&|arguments| {
            let read = arguments.as_str().and_then(|text| serde_json::from_str(text).ok());
            read.filter(Value::is_object).unwrap_or_else(|| arguments.clone())
        })
    }

    /// The same with its calls told by its content, one a line, as a model is made to write them whose template knows none.
    pub fn with_calls_in_content(&self) -> Message {
        let mut message = self.with_read_arguments();
        let Some(Value::Array(calls)) = message.fields.shift_remove("tool_calls") else {
            return message;
        };
        let calls = calls.iter().filter_map(|call| call.get("function")).map(|function| {
            let [name, arguments] = ["name", "arguments"].map(|key| function.get(key).unwrap_or(&Value::Null));
            format!("{{\"name\": {name}, \"arguments\": {arguments}}}")
        });
        let content = message.content().filter(|content| !content.is_empty());
        let lines: Vec<String> = content.map(str::to_owned).into_iter().chain(calls).collect();
        message.fields.insert("content".into(), Value::from(lines.join("\n")));
        message
    }

    fn map_arguments(&self, map: &dyn Fn(&Value) -> Value) -> Message {
        let mut message = self.clone();
        let calls = message.fields.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            if let Some(arguments) = call.pointer_mut("/function/arguments") {
                *arguments = map(arguments);
            }
        }
        message
    }

    /// The fields as they were given.
    pub(crate) fn own_fields(&self) -> &Map<String, Value> {
        &self.fields
    }

    /// The fields as a template gets them: none that is null, and reasoning under each of its names.
    pub(crate) fn fields(&self) -> Map<String, Value> {
        let mut fields: Map<String, Value> = self
            .fields
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        if let Some(reasoning) = REASONING.iter().find_map(|name| fields.get(*name)).cloned() {
            fields.entry("thinking").or_insert_with(|| reasoning.clone());
            fields.insert("reasoning_content".into(), reasoning);
        }
        fields
    }
}
