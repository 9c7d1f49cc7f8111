//! The fields of a request, in the form of chat completions.

use serde_json::{Map, Value, json};

use super::input;
use crate::error::ApiError;
use crate::fields::{Fields, kind};
use crate::openai::logprobs;

/// A request that was understood.
pub(super) struct Translated {
    /// The same request as a chat completion.
    pub chat: Fields,
    pub stream: bool,
    /// What the response repeats of the request.
    pub told: Map<String, Value>,
    /// Names of the fields that nobody knows.
    pub ignored: Vec<String>,
}

pub(super) fn translate(mut fields: Fields) -> Result<Translated, ApiError> {
    refuse_unsupported(&mut fields)?;
    let mut chat = Map::new();
    let mut told = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            chat.insert(name.to_owned(), value);
        }
    };
    let mut tell = |name: &str, value: Option<Value>, otherwise: Value| {
        told.insert(name.to_owned(), value.unwrap_or(otherwise));
    };
    put("model", fields.text("model")?.map(Value::from));
    let most = fields.count("max_output_tokens", 1..=u64::MAX)?.map(Value::from);
    tell("max_output_tokens", most.clone(), Value::Null);
    put("max_tokens", most);
    for (name, most) in [("temperature", 2.0), ("top_p", 1.0)] {
        let number = fields.number(name, 0.0..=most)?.map(Value::from);
        tell(name, number.clone(), Value::Null);
        put(name, number);
    }
    let mut ignored = Vec::new();
    let (tools, told_tools) = tools(&mut fields, &mut ignored)?;
    put("tools", tools);
    tell("tools", Some(told_tools), json!([]));
    let choice = fields.take("tool_choice");
    put("tool_choice", choice.as_ref().map(tool_choice).transpose()?);
    tell("tool_choice", choice, json!("auto"));
    let parallel = fields.flag("parallel_tool_calls")?.map(Value::from);
    put("parallel_tool_calls", parallel.clone());
    tell("parallel_tool_calls", parallel, json!(true));
    let (format, told_text) = text(&mut fields)?;
    put("response_format", format);
    tell("text", told_text, json!({"format": {"type": "text"}}));
    let reasoning = fields.object("reasoning")?;
    let effort = reasoning
        .as_ref()
        .and_then(|reasoning| reasoning.get("effort"))
        .cloned();
    put("reasoning_effort", effort.filter(|effort| !effort.is_null()));
    tell(
        "reasoning",
        reasoning.map(Value::from),
        json!({"effort": null, "summary": null}),
    );
    tell("metadata", fields.object("metadata")?.map(Value::from), json!({}));
    let likely = include(&mut fields)?;
    put("logprobs", likely.then_some(json!(true)));
    let likeliest = fields.count("top_logprobs", 0..=logprobs::MOST)?;
    if likeliest.is_some_and(|count| count > 0) && !likely {
        let message = format!("top_logprobs needs {LOGPROBS} in include");
        return Err(ApiError::field("top_logprobs", message));
    }
    put("top_logprobs", likeliest.filter(|_| likely).map(Value::from));
    tell("top_logprobs", likeliest.map(Value::from), json!(0));
    let stream = fields.flag("stream")?.unwrap_or(false);
    let instructions = fields.text("instructions")?;
    tell("instructions", instructions.clone().map(Value::from), Value::Null);
    put("messages", Some(input::take(&mut fields, instructions)?));
    ignored.extend(fields.names_left());
    Ok(Translated {
        chat: Fields::new(chat),
        stream,
        told,
        ignored,
    })
}

/// What `include` asks for with the text of an answer.
const LOGPROBS: &str = "message.output_text.logprobs";

/// Whether `include` asks how likely tokens were. Reasoning is not encrypted: it comes as it is.
fn include(fields: &mut Fields) -> Result<bool, ApiError> {
    let asked = match fields.take("include") {
        None => return Ok(false),
        Some(Value::Array(asked)) => asked,
        Some(other) => {
            let message = format!("include is {}, expected a list", kind(&other));
            return Err(ApiError::field("include", message));
        }
    };
    let known = [LOGPROBS, "reasoning.encrypted_content"].map(Value::from);
    match asked.iter().find(|name| !known.contains(name)) {
        Some(_) => Err(ApiError::unsupported("include")),
        None => Ok(asked.contains(&known[0])),
    }
}

/// What is understood and not done, unless it asks for nothing.
fn refuse_unsupported(fields: &mut Fields) -> Result<(), ApiError> {
    for (name, idle) in [
        // Nothing is kept between requests.
        ("previous_response_id", vec![]),
        ("conversation", vec![]),
        ("store", vec![json!(false)]),
        ("background", vec![json!(false)]),
        ("prompt", vec![]),
        ("max_tool_calls", vec![]),
        ("moderation", vec![]),
        ("context_management", vec![json!([])]),
        ("service_tier", vec![json!("auto"), json!("default")]),
        ("stream_options", vec![json!({}), json!({"include_obfuscation": false})]),
        ("truncation", vec![json!("disabled")]),
    ] {
        fields.refuse(name, &idle)?;
    }
    // What was read before is remembered without being asked; who asks says nothing about the answer.
    for name in [
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "user",
    ] {
        fields.take(name);
    }
    Ok(())
}

/// Functions in the form of chat completions, and as they were. Tools of OpenAI's own are nothing that a client can wait for here: agents
/// send them with all others, and do without.
fn tools(fields: &mut Fields, ignored: &mut Vec<String>) -> Result<(Option<Value>, Value), ApiError> {
    let list = match fields.take("tools") {
        None => return Ok((None, json!([]))),
        Some(Value::Array(list)) => list,
        Some(other) => {
            let message = format!("tools is {}, expected a list", kind(&other));
            return Err(ApiError::field("tools", message));
        }
    };
    let (mut functions, mut told) = (Vec::new(), Vec::new());
    for (index, tool) in list.into_iter().enumerate() {
        if tool.get("type") != Some(&json!("function")) {
            ignored.push(format!("tools[{index}]"));
            continue;
        }
        let Value::Object(mut function) = tool.clone() else {
            continue;
        };
        function.remove("type");
        functions.push(json!({"type": "function", "function": function}));
        told.push(tool);
    }
    Ok((Some(Value::from(functions)), Value::from(told)))
}

fn tool_choice(choice: &Value) -> Result<Value, ApiError> {
    let name = choice.get("name").and_then(Value::as_str);
    match (choice.as_str(), choice.get("type").and_then(Value::as_str), name) {
        (Some("none" | "auto" | "required"), ..) => Ok(choice.clone()),
        (None, Some("function"), Some(name)) => Ok(json!({"type": "function", "function": {"name": name}})),
        _ => {
            let message = "tool_choice must be none, auto, required or {\"type\": \"function\", \"name\": ..}";
            Err(ApiError::field("tool_choice", message))
        }
    }
}

/// `text` as a form of the answer, and as it was.
fn text(fields: &mut Fields) -> Result<(Option<Value>, Option<Value>), ApiError> {
    let Some(text) = fields.object("text")? else {
        return Ok((None, None));
    };
    let mut parts = Fields::new(text.clone());
    let format = match parts.object("format")? {
        None => None,
        Some(mut format) if format.get("type") == Some(&json!("json_schema")) => {
            format.remove("type");
            Some(json!({"type": "json_schema", "json_schema": format}))
        }
        Some(format) => Some(Value::from(format)),
    };
    parts
        .refuse("verbosity", &[json!("medium")])
        .map_err(|_| ApiError::unsupported("text.verbosity"))?;
    match parts.names_left().first() {
        Some(name) => Err(ApiError::unsupported(&format!("text.{name}"))),
        None => Ok((format, Some(Value::from(text)))),
    }
}
