//! `instructions` and `input` as messages of chat completions.

use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, kind};
use crate::turns::{BETWEEN, push};

/// Takes `input`, which follows the instructions.
pub(super) fn take(fields: &mut Fields, instructions: Option<String>) -> Result<Value, ApiError> {
    let mut turns = Vec::new();
    if let Some(instructions) = instructions {
        push(&mut turns, "system", &instructions);
    }
    let items = match fields.take("input") {
        Some(Value::String(text)) => {
            push(&mut turns, "user", &text);
            return Ok(Value::from(turns));
        }
        Some(Value::Array(items)) if !items.is_empty() => items,
        other => {
            let is = other.as_ref().map_or("missing", kind);
            let message = format!("input is {is}, expected a text or a list of items");
            return Err(ApiError::field("input", message));
        }
    };
    // What was thought belongs to what is said or called next.
    let mut thoughts = String::new();
    for (index, item) in items.iter().enumerate() {
        let place = format!("input[{index}]");
        match item.get("type").and_then(Value::as_str) {
            None | Some("message") => message(&mut turns, &place, item, &mut thoughts)?,
            Some("reasoning") => thoughts.push_str(&thought(item)),
            Some("function_call") => {
                let function =
                    json!({"name": field(&place, item, "name")?, "arguments": field(&place, item, "arguments")?});
                let call = json!({"id": field(&place, item, "call_id")?, "type": "function", "function": function});
                calls(&mut turns, &mut thoughts).push(call);
            }
            Some("function_call_output") => {
                let id = field(&place, item, "call_id")?;
                let output = texts(&format!("{place}.output"), item.get("output"))?;
                turns.push(json!({"role": "tool", "tool_call_id": id, "content": output}));
            }
            Some(other) => {
                let message = format!("{place} is of type {other:?}, which is not supported by this server");
                return Err(ApiError::field(format!("{place}.type"), message));
            }
        }
    }
    Ok(Value::from(turns))
}

fn message(turns: &mut Vec<Value>, place: &str, item: &Value, thoughts: &mut String) -> Result<(), ApiError> {
    let text = texts(&format!("{place}.content"), item.get("content"))?;
    match item.get("role").and_then(Value::as_str) {
        Some("system" | "developer") => push(turns, "system", &text),
        Some("user") => push(turns, "user", &text),
        Some("assistant") if thoughts.is_empty() => push(turns, "assistant", &text),
        Some("assistant") => {
            let thoughts = std::mem::take(thoughts);
            turns.push(json!({"role": "assistant", "content": text, "reasoning_content": thoughts}));
        }
        _ => {
            let param = format!("{place}.role");
            let text = format!("{param} must be system, developer, user or assistant");
            return Err(ApiError::field(param, text));
        }
    }
    Ok(())
}

/// The list of calls of the assistant's turn that is last, which is begun if another is.
fn calls<'a>(turns: &'a mut Vec<Value>, thoughts: &mut String) -> &'a mut Vec<Value> {
    let begins = turns.last().is_none_or(|last| last["role"] != "assistant") || !thoughts.is_empty();
    if begins {
        let mut turn = json!({"role": "assistant", "content": null});
        if !thoughts.is_empty() {
            turn["reasoning_content"] = Value::from(std::mem::take(thoughts));
        }
        turns.push(turn);
    }
    let last = turns.len() - 1;
    let calls = &mut turns[last]["tool_calls"];
    if calls.is_null() {
        *calls = json!([]);
    }
    calls.as_array_mut().expect("a list was put there")
}

fn thought(item: &Value) -> String {
    let parts = item.get("content").and_then(Value::as_array).into_iter().flatten();
    parts
        .filter_map(|part| part.get("text").and_then(Value::as_str))
        .collect()
}

fn field<'a>(place: &str, item: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    item.get(name).and_then(Value::as_str).ok_or_else(|| {
        let param = format!("{place}.{name}");
        ApiError::field(param.clone(), format!("{param} must be a text"))
    })
}

/// A text, or parts of text.
fn texts(place: &str, content: Option<&Value>) -> Result<String, ApiError> {
    let parts = match content {
        Some(Value::String(text)) => return Ok(text.clone()),
        Some(Value::Array(parts)) => parts,
        other => {
            let message = format!(
                "{place} is {}, expected a text or a list of parts",
                other.map_or("missing", kind)
            );
            return Err(ApiError::field(place, message));
        }
    };
    let texts = parts.iter().enumerate().map(|(index, part)| {
        let place = format!("{place}[{index}]");
        match part.get("type").and_then(Value::as_str) {
            Some("input_text" | "output_text" | "text") => field(&place, part, "text").map(str::to_owned),
            Some(other) => {
                let message = format!("{place} is of type {other:?}; this model reads text only");
                Err(ApiError::field(place, message))
            }
            None => Err(ApiError::field(place.clone(), format!("{place} has no type"))),
        }
    });
    Ok(texts.collect::<Result<Vec<String>, ApiError>>()?.join(BETWEEN))
}
