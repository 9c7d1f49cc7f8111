//! `system` and `messages`, in OpenAI's form.

use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, kind};
use crate::turns::{BETWEEN, push};

/// Takes `system` and `messages`.
pub(super) fn take(fields: &mut Fields) -> Result<Value, ApiError> {
    let mut found = Vec::new();
    if let Some(system) = fields.take("system") {
        push(&mut found, "system", &texts("system", &system)?);
    }
    let list = match fields.take("messages") {
        Some(Value::Array(list)) if !list.is_empty() => list,
        other => {
            let is = other.as_ref().map_or("missing", kind);
            let message = format!("messages is {is}, expected a list of at least one message");
            return Err(ApiError::field("messages", message));
        }
    };
    for (index, message) in list.iter().enumerate() {
        let place = format!("messages[{index}]");
        let Some(content) = message.get("content") else {
            let param = format!("{place}.content");
            return Err(ApiError::field(param.clone(), format!("{param} is missing")));
        };
        match message.get("role").and_then(Value::as_str) {
            Some("system") => push(&mut found, "system", &texts(&format!("{place}.content"), content)?),
            Some("user") => user(&mut found, &place, content)?,
            Some("assistant") if index + 1 == list.len() => {
                let text = format!("{place} is the assistant's: an answer cannot be begun by the client here");
                return Err(ApiError::field(place, text));
            }
            Some("assistant") => assistant(&mut found, &place, content)?,
            _ => {
                let param = format!("{place}.role");
                let text = format!("{param} must be user, assistant or system");
                return Err(ApiError::field(param, text));
            }
        }
    }
    Ok(Value::from(found))
}

/// A text, or blocks of text.
fn texts(place: &str, content: &Value) -> Result<String, ApiError> {
    let blocks = match content {
        Value::String(text) => return Ok(text.clone()),
        Value::Array(blocks) => blocks,
        other => {
            let message = format!("{place} is {}, expected a text or a list of blocks", kind(other));
            return Err(ApiError::field(place, message));
        }
    };
    let texts = blocks.iter().enumerate().map(|(index, block)| {
        let place = format!("{place}[{index}]");
        match block.get("type").and_then(Value::as_str) {
            Some("text") => text(&place, block, "text"),
            _ => Err(unreadable(place, block)),
        }
    });
    Ok(texts.collect::<Result<Vec<String>, ApiError>>()?.join(BETWEEN))
}

fn text(place: &str, block: &Value, name: &str) -> Result<String, ApiError> {
    let text = block.get(name).and_then(Value::as_str);
    text.map(str::to_owned).ok_or_else(|| {
        let param = format!("{place}.{name}");
        ApiError::field(param.clone(), format!("{param} must be a text"))
    })
}

fn unreadable(place: String, block: &Value) -> ApiError {
    let message = match block.get("type").and_then(Value::as_str) {
        Some(kind) => format!("{place} is of type {kind:?}, which this model does not read here"),
        None => format!("{place} has no type"),
    };
    ApiError::field(place, message)
}

/// Texts and results of tools. What a result says of being an error is written before it: chat templates have no place for that.
fn user(found: &mut Vec<Value>, place: &str, content: &Value) -> Result<(), ApiError> {
    let Value::Array(blocks) = content else {
        push(found, "user", &texts(&format!("{place}.content"), content)?);
        return Ok(());
    };
    for (index, block) in blocks.iter().enumerate() {
        let place = format!("{place}.content[{index}]");
        match block.get("type").and_then(Value::as_str) {
            Some("text") => push(found, "user", &text(&place, block, "text")?),
            Some("tool_result") => {
                let result = match block.get("content") {
                    None | Some(Value::Null) => String::new(),
                    Some(content) => texts(&format!("{place}.content"), content)?,
                };
                let failed = block.get("is_error") == Some(&Value::Bool(true));
                let result = if failed { format!("Error: {result}") } else { result };
                let id = text(&place, block, "tool_use_id")?;
                found.push(json!({"role": "tool", "tool_call_id": id, "content": result}));
            }
            _ => return Err(unreadable(place, block)),
        }
    }
    Ok(())
}

/// What the model said, thought and called.
fn assistant(found: &mut Vec<Value>, place: &str, content: &Value) -> Result<(), ApiError> {
    let Value::Array(blocks) = content else {
        push(found, "assistant", &texts(&format!("{place}.content"), content)?);
        return Ok(());
    };
    let (mut said, mut thoughts, mut calls) = (Vec::new(), String::new(), Vec::new());
    for (index, block) in blocks.iter().enumerate() {
        let place = format!("{place}.content[{index}]");
        match block.get("type").and_then(Value::as_str) {
            Some("text") => said.push(text(&place, block, "text")?),
            Some("thinking") => thoughts.push_str(&text(&place, block, "thinking")?),
            Some("tool_use") => {
                let input = block.get("input").filter(|input| input.is_object()).ok_or_else(|| {
                    let param = format!("{place}.input");
                    ApiError::field(param.clone(), format!("{param} must be an object"))
                })?;
                let function = json!({"name": text(&place, block, "name")?, "arguments": input.to_string()});
                calls.push(json!({"id": text(&place, block, "id")?, "type": "function", "function": function}));
            }
            _ => return Err(unreadable(place, block)),
        }
    }
    if thoughts.is_empty() && calls.is_empty() {
        push(found, "assistant", &said.join(BETWEEN));
        return Ok(());
    }
    let mut message = Map::new();
    message.insert("role".to_owned(), json!("assistant"));
    message.insert("content".to_owned(), json!(said.join(BETWEEN)));
    if !thoughts.is_empty() {
        message.insert("reasoning_content".to_owned(), Value::from(thoughts));
    }
    if !calls.is_empty() {
        message.insert("tool_calls".to_owned(), Value::from(calls));
    }
    found.push(Value::Object(message));
    Ok(())
}
