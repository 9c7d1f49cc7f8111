//! `tools` and what goes with them.

use planish::{Tool, ToolChoice};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::{Fields, kind};

/// Tools of a request, at most.
const MOST_TOOLS: usize = 128;

/// Tools, whether they are called, and whether several calls may come at once.
pub(super) struct Tools {
    pub tools: Vec<Tool>,
    pub choice: ToolChoice,
    pub parallel: bool,
}

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
pub(super) fn take(fields: &mut Fields) -> Result<Tools, ApiError> {
    let tools = match fields.take("tools") {
        None => Vec::new(),
        Some(Value::Array(list)) if list.len() <= MOST_TOOLS => {
            let tools = list.iter().enumerate();
            tools
                .map(|(index, tool)| tool_of(index, tool))
                .collect::<Result<_, _>>()?
        }
        Some(Value::Array(list)) => {
            let message = format!("tools has {} items, expected at most {MOST_TOOLS}", list.len());
            return Err(ApiError::field("tools", message));
        }
        Some(other) => {
            let message = format!("tools is {}, expected a list", kind(&other));
            return Err(ApiError::field("tools", message));
        }
    };
    let choice = match fields.take("tool_choice") {
        None => match tools.is_empty() {
            true => ToolChoice::None,
            false => ToolChoice::Auto,
        },
        Some(choice) => choice_of(&choice, &tools)?,
    };
    Ok(Tools {
        tools,
        choice,
        parallel: fields.flag("parallel_tool_calls")?.unwrap_or(true),
    })
}

fn tool_of(index: usize, tool: &Value) -> Result<Tool, ApiError> {
    let place = format!("tools[{index}]");
    let error = |param: String, expected: &str| {
        let message = format!("{param} must be {expected}");
        Err(ApiError::field(param, message))
    };
    if tool["type"] != "function" {
        return error(format!("{place}.type"), "\"function\"");
    }
    let function = &tool["function"];
    let name = function["name"].as_str().unwrap_or_default();
    let is_letter = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_letter) {
        let expected = "1 to 64 letters, digits, dots, dashes and underscores";
        return error(format!("{place}.function.name"), expected);
    }
    let description = match &function["description"] {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        _ => return error(format!("{place}.function.description"), "a text"),
    };
    let parameters = match &function["parameters"] {
        Value::Null => json!({"type": "object", "properties": {}}),
        parameters @ Value::Object(_) => parameters.clone(),
        _ => return error(format!("{place}.function.parameters"), "a JSON schema"),
    };
    Ok(Tool {
        name: name.to_owned(),
        description,
        parameters,
    })
}

fn choice_of(choice: &Value, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let error = |message: &str| Err(ApiError::field("tool_choice", format!("tool_choice {message}")));
    let named = match choice {
        Value::String(word) => match word.as_str() {
            "none" => return Ok(ToolChoice::None),
            "auto" => return Ok(ToolChoice::Auto),
            "required" if tools.is_empty() => return error("is \"required\", but there are no tools"),
            "required" => return Ok(ToolChoice::Required),
            _ => None,
        },
        Value::Object(choice) if choice.get("type").is_some_and(|kind| kind == "function") => {
            choice.get("function").and_then(|function| function["name"].as_str())
        }
        _ => None,
    };
    match named {
        Some(name) if tools.iter().any(|tool| tool.name == name) => Ok(ToolChoice::Named(name.to_owned())),
        Some(name) => error(&format!("names {name:?}, which is none of the tools")),
        None => {
            error("must be \"none\", \"auto\", \"required\", or {\"type\": \"function\", \"function\": {\"name\": ..}}")
        }
    }
}
