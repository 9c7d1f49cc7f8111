//! The fields of a request, in OpenAI's form.

use serde_json::{Map, Value, json};

use super::messages;
use crate::error::ApiError;
use crate::fields::{Fields, kind};

/// A request that was understood.
pub(super) struct Translated {
    /// The same request in OpenAI's form.
    pub chat: Fields,
    pub stream: bool,
    /// What the model thinks is part of the answer.
    pub thoughts: bool,
    /// Names of the fields that nobody knows.
    pub ignored: Vec<String>,
}

/// Stop sequences, at most.
const MOST_STOPS: usize = 16;

/// Translates the fields of a message that is `asked` for, or whose tokens are only counted.
pub(super) fn translate(mut fields: Fields, asked: bool) -> Result<Translated, ApiError> {
    let mut chat = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            chat.insert(name.to_owned(), value);
        }
    };
    put("model", fields.text("model")?.map(Value::from));
    let most = fields.count("max_tokens", 1..=u64::MAX)?;
    if asked && most.is_none() {
        return Err(ApiError::field("max_tokens", "max_tokens is missing"));
    }
    put("max_tokens", most.map(Value::from));
    put("temperature", fields.number("temperature", 0.0..=2.0)?.map(Value::from));
    put("top_p", fields.number("top_p", 0.0..=1.0)?.map(Value::from));
    put("top_k", fields.count("top_k", 0..=u64::MAX)?.map(Value::from));
    put("stop", fields.texts("stop_sequences", MOST_STOPS)?.map(Value::from));
    let stream = fields.flag("stream")?.unwrap_or(false);
    let thinking = thinking(&mut fields)?;
    put("chat_template_kwargs", thinking.variables);
    put("reasoning_budget", thinking.budget);
    let (effort, format) = output(&mut fields)?;
    put("reasoning_effort", effort);
    put("response_format", format);
    put("tools", tools(&mut fields)?);
    let (choice, parallel) = tool_choice(&mut fields)?;
    put("tool_choice", choice);
    put("parallel_tool_calls", parallel);
    for (name, idle) in [
        ("service_tier", vec![json!("auto"), json!("standard_only")]),
        ("speed", vec![json!("standard")]),
        ("container", vec![]),
        ("mcp_servers", vec![json!([])]),
        ("inference_geo", vec![]),
    ] {
        fields.refuse(name, &idle)?;
    }
    // What was read before is remembered without being asked; who asks says nothing about the answer.
    fields.take("cache_control");
    fields.take("metadata");
    put("messages", Some(messages::take(&mut fields)?));
    Ok(Translated {
        chat: Fields::new(chat),
        stream,
        thoughts: thinking.shown,
        ignored: fields.names_left(),
    })
}

/// What `thinking` says.
struct Thinking {
    /// For the template.
    variables: Option<Value>,
    budget: Option<Value>,
    shown: bool,
}

fn thinking(fields: &mut Fields) -> Result<Thinking, ApiError> {
    let Some(mut thinking) = fields.object("thinking")?.map(Fields::new) else {
        return Ok(Thinking {
            variables: None,
            budget: None,
            shown: true,
        });
    };
    let error = |name: &str, expected: &str| {
        let param = format!("thinking.{name}");
        Err(ApiError::field(param.clone(), format!("{param} must be {expected}")))
    };
    let shown = match thinking.text("display")?.as_deref() {
        None | Some("summarized") => true,
        Some("omitted") => false,
        Some(_) => return error("display", "summarized or omitted"),
    };
    let budget = thinking.count("budget_tokens", 1..=u64::MAX)?;
    let enabled = match (thinking.text("type")?.as_deref(), budget) {
        (Some("enabled"), Some(_)) => Some(true),
        (Some("enabled"), None) => return error("budget_tokens", "there"),
        (Some("disabled"), None) => Some(false),
        (Some("adaptive"), None) => None,
        (Some("disabled" | "adaptive"), Some(_)) => {
            return error("budget_tokens", "left out unless thinking is enabled");
        }
        _ => return error("type", "enabled, disabled or adaptive"),
    };
    Ok(Thinking {
        variables: enabled.map(|enabled| json!({"enable_thinking": enabled})),
        budget: budget.map(Value::from),
        shown,
    })
}

/// `output_config` as an effort and a form of the answer.
fn output(fields: &mut Fields) -> Result<(Option<Value>, Option<Value>), ApiError> {
    let Some(mut config) = fields.object("output_config")?.map(Fields::new) else {
        return Ok((None, None));
    };
    // Templates know three.
    let effort = match config.text("effort")?.as_deref() {
        None => None,
        Some(effort @ ("low" | "medium" | "high")) => Some(Value::from(effort)),
        Some("xhigh" | "max") => Some(json!("high")),
        Some(_) => {
            let message = "output_config.effort must be low, medium, high, xhigh or max";
            return Err(ApiError::field("output_config.effort", message));
        }
    };
    let format = match config.object("format")? {
        None => None,
        Some(format) if format.get("type") == Some(&json!("json_schema")) && format.contains_key("schema") => {
            Some(json!({
                "type": "json_schema",
                "json_schema": {"name": "answer", "strict": true, "schema": format["schema"]},
            }))
        }
        Some(_) => {
            let message = "output_config.format must be {\"type\": \"json_schema\", \"schema\": ..}";
            return Err(ApiError::field("output_config.format", message));
        }
    };
    match config.names_left().first() {
        Some(name) => Err(ApiError::unsupported(&format!("output_config.{name}"))),
        None => Ok((effort, format)),
    }
}

/// Tools as functions. What a tool of Anthropic's own does is nothing that this server could do.
fn tools(fields: &mut Fields) -> Result<Option<Value>, ApiError> {
    let Some(value) = fields.take("tools") else {
        return Ok(None);
    };
    let Value::Array(list) = value else {
        let message = format!("tools is {}, expected a list", kind(&value));
        return Err(ApiError::field("tools", message));
    };
    let tool = |(index, tool): (usize, Value)| {
        let place = format!("tools[{index}]");
        let field = |name: &str| {
            let param = format!("{place}.{name}");
            let text = format!("{param} is missing, or not what it must be");
            ApiError::field(param, text)
        };
        match tool.get("type").map(Value::as_str) {
            None | Some(Some("custom")) => {}
            _ => return Err(ApiError::unsupported(&format!("{place}.type {}", tool["type"]))),
        }
        let name = tool.get("name").and_then(Value::as_str).ok_or_else(|| field("name"))?;
        let schema = tool.get("input_schema").filter(|schema| schema.is_object());
        let mut function = json!({"name": name, "parameters": schema.ok_or_else(|| field("input_schema"))?});
        for name in ["description", "strict"] {
            if let Some(value) = tool.get(name).filter(|value| !value.is_null()) {
                function[name] = value.clone();
            }
        }
        Ok(json!({"type": "function", "function": function}))
    };
    let tools: Result<Vec<Value>, ApiError> = list.into_iter().enumerate().map(tool).collect();
    Ok(Some(Value::from(tools?)))
}

/// `tool_choice` as OpenAI's, and whether several calls may come at a time.
fn tool_choice(fields: &mut Fields) -> Result<(Option<Value>, Option<Value>), ApiError> {
    let Some(mut choice) = fields.object("tool_choice")?.map(Fields::new) else {
        return Ok((None, None));
    };
    let serial = choice.flag("disable_parallel_tool_use")?;
    let translated = match choice.text("type")?.as_deref() {
        Some("auto") => json!("auto"),
        Some("any") => json!("required"),
        Some("none") => json!("none"),
        Some("tool") => match choice.text("name")? {
            Some(name) => json!({"type": "function", "function": {"name": name}}),
            None => return Err(ApiError::field("tool_choice.name", "tool_choice.name is missing")),
        },
        _ => {
            let message = "tool_choice.type must be auto, any, tool or none";
            return Err(ApiError::field("tool_choice.type", message));
        }
    };
    Ok((Some(translated), serial.map(|serial| Value::from(!serial))))
}
