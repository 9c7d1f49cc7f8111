//! Messages of a conversation, as the chat template gets them.

use planish::Message;
use serde_json::{Map, Value};

use crate::error::ApiError;
use crate::fields::{Fields, kind};

/// Takes `messages`.
pub(super) fn take(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let Some(value) = fields.take("messages") else {
        return Err(ApiError::field("messages", "messages are missing"));
    };
    let Value::Array(list) = value else {
        let message = format!("messages is {}, expected a list", kind(&value));
        return Err(ApiError::field("messages", message));
    };
    if list.is_empty() {
        return Err(ApiError::field("messages", "messages is empty"));
    }
    let messages = list.into_iter().enumerate();
    messages.map(|(index, message)| read(index, message)).collect()
}

fn read(index: usize, message: Value) -> Result<Message, ApiError> {
    let place = format!("messages[{index}]");
    let Value::Object(mut message) = message else {
        let text = format!("{place} is {}, expected an object", kind(&message));
        return Err(ApiError::field(place, text));
    };
    let role = message.get("role").and_then(Value::as_str).unwrap_or_default();
    let role = match role {
        // Newer models of OpenAI have it in place of the other.
        "developer" => "system",
        "system" | "user" | "assistant" | "tool" => role,
        _ => {
            let param = format!("{place}.role");
            let text = format!("{param} must be system, developer, user, assistant or tool");
            return Err(ApiError::field(param, text));
        }
    };
    let role = Value::from(role);
    let content = match message.remove("content") {
        Some(Value::String(text)) => Some(text),
        Some(Value::Array(parts)) => Some(joined(&place, &parts)?),
        None | Some(Value::Null) if message.contains_key("tool_calls") => None,
        other => {
            let param = format!("{place}.content");
            let found = other.as_ref().map_or("missing", kind);
            let text = format!("{param} is {found}, expected a text or a list of parts");
            return Err(ApiError::field(param, text));
        }
    };
    let mut fields = Map::new();
    fields.insert("role".to_owned(), role);
    if let Some(content) = content {
        fields.insert("content".to_owned(), Value::from(content));
    }
    message.remove("role");
    fields.extend(message);
    Ok(Message::from_fields(fields).with_read_arguments())
}

/// Parts of text, one after the other.
fn joined(place: &str, parts: &[Value]) -> Result<String, ApiError> {
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let param = format!("{place}.content[{index}]");
        match (part.get("type").and_then(Value::as_str), part.get("text")) {
            (Some("text"), Some(Value::String(piece))) => text.push_str(piece),
            (Some("text"), _) => return Err(ApiError::field(param.clone(), format!("{param}.text must be a text"))),
            (Some(other), _) => {
                let message = format!("{param} is of type {other:?}; this model reads text only");
                return Err(ApiError::field(param, message));
            }
            (None, _) => return Err(ApiError::field(param.clone(), format!("{param} has no type"))),
        }
    }
    Ok(text)
}
