//! Tools: an agent's turns, whole and in pieces, and what is refused.

use planish::{AutoModelForCausalLM, EngineOptions};
use serde_json::{Value, json};

use crate::server::{Running, options};

/// As Hermes' models have it.
pub const TEMPLATE: &str = "{% if tools %}<tools>{{ tools | tojson }}</tools>{% endif %}{% for m in messages %}{{ m.role }}: \
{{ m.content or '' }}{% for call in m.tool_calls or [] %}<tool_call>\n{{ call.function | tojson }}\n</tool_call>{% endfor %}\n\
{% endfor %}assistant:";

pub fn server(template: &str) -> Running {
    let builder = AutoModelForCausalLM::demo()
        .exact(true)
        .chat_template(template.to_owned());
    Running::with(builder.load().unwrap(), options(), EngineOptions::default())
}

pub fn tools() -> Value {
    let weather = json!({"type": "object", "properties": {"city": {"type": "string", "maxLength": 10},
        "days": {"type": "integer", "minimum": 1, "maximum": 9}}, "required": ["city", "days"], "additionalProperties": false});
    let nothing = json!({"type": "object", "properties": {}, "additionalProperties": false});
    json!([
        {"type": "function", "function": {"name": "get_weather", "description": "The weather.", "parameters": weather, "strict": true}},
        {"type": "function", "function": {"name": "stop", "parameters": nothing}},
    ])
}

fn is_weather(arguments: &Value) -> bool {
    let arguments: Value = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
    (1..=9).contains(&arguments["days"].as_i64().unwrap()) && arguments["city"].is_string()
}

#[test]
fn an_agent_takes_its_turns() {
    let server = server(TEMPLATE);
    let chat = "/v1/chat/completions";
    let named = json!({"type": "function", "function": {"name": "get_weather"}});
    let mut messages = vec![json!({"role": "user", "content": "Will it rain?"})];
    let mut body = json!({
        "messages": messages, "tools": tools(), "tool_choice": named, "max_tokens": 200, "temperature": 1, "seed": 5,
    });
    let (status, answer) = server.post(chat, &body);
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(choice["finish_reason"], "tool_calls", "{answer}");
    let message = &choice["message"];
    assert!(message["content"].is_null(), "{message}");
    let call = &message["tool_calls"][0];
    assert_eq!(
        (&call["type"], &call["function"]["name"]),
        (&json!("function"), &json!("get_weather"))
    );
    assert!(is_weather(&call["function"]["arguments"]), "{call}");
    let id = call["id"].as_str().unwrap();
    assert!(id.len() == 9 && id.bytes().all(|letter| letter.is_ascii_alphanumeric()));

    // The same in pieces.
    body["stream"] = json!(true);
    let mut events = server.stream(chat, &body);
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let events: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let calls: Vec<&Value> = events
        .iter()
        .filter_map(|event| event.pointer("/choices/0/delta/tool_calls/0"))
        .collect();
    assert_eq!(calls[0]["function"], json!({"name": "get_weather", "arguments": ""}));
    assert!(
        calls.len() > 3 && calls.iter().all(|call| call["index"] == 0),
        "arguments come in pieces: {calls:?}"
    );
    let arguments: String = calls
        .iter()
        .filter_map(|call| call["function"]["arguments"].as_str())
        .collect();
    assert_eq!(json!(arguments), call["function"]["arguments"]);
    assert_eq!(events.last().unwrap()["choices"][0]["finish_reason"], "tool_calls");
    let said = events
        .iter()
        .filter_map(|event| event.pointer("/choices/0/delta/content")?.as_str());
    assert_eq!(said.collect::<String>(), "");

    // The call and its result go on in the conversation.
    messages.extend([
        message.clone(),
        json!({"role": "tool", "tool_call_id": call["id"], "content": "Rain."}),
    ]);
    let prompt = |messages: &[Value]| {
        let body =
            json!({"messages": messages, "tools": tools(), "tool_choice": "auto", "max_tokens": 1, "temperature": 0});
        let (status, answer) = server.post(chat, &body);
        assert_eq!(status, 200, "{answer}");
        answer["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    assert!(prompt(&messages) > prompt(&messages[..1]) + 20);

    // At least one of any, several only where they may come.
    for parallel in [true, false] {
        let body = json!({
            "messages": messages, "tools": tools(), "tool_choice": "required", "parallel_tool_calls": parallel,
            "max_tokens": 300, "temperature": 1, "seed": 8, "n": 3,
        });
        let (_, answer) = server.post(chat, &body);
        for choice in answer["choices"].as_array().unwrap() {
            let calls = choice["message"]["tool_calls"].as_array().unwrap();
            assert!(!calls.is_empty() && (parallel || calls.len() == 1), "{choice}");
            for call in calls {
                let function = &call["function"];
                match function["name"].as_str().unwrap() {
                    "stop" => assert_eq!(function["arguments"], "{}"),
                    _ if choice["finish_reason"] == "tool_calls" => assert!(is_weather(&function["arguments"])),
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn tools_are_refused_where_they_cannot_be_called() {
    let plain = "{% for m in messages %}{{ m.content }}{% endfor %}</think>";
    let server = server(plain);
    let chat = "/v1/chat/completions";
    let ask = |changes: Value| {
        let mut body =
            json!({"messages": [{"role": "user", "content": "A"}], "max_tokens": 120, "temperature": 1, "seed": 2});
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        server.post(chat, &body)
    };
    let unknown = json!({"type": "function", "function": {"name": "other"}});
    let broken = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "frog"}}}]);
    for (changes, param) in [
        (json!({"tools": tools()}), "tool_choice"),
        (json!({"tools": tools(), "tool_choice": unknown}), "tool_choice"),
        (json!({"tools": tools(), "tool_choice": "sometimes"}), "tool_choice"),
        (json!({"tools": broken, "tool_choice": "required"}), "tools"),
        (
            json!({"tools": tools(), "tool_choice": "required", "parallel_tool_calls": 1}),
            "parallel_tool_calls",
        ),
        (json!({"reasoning_budget": 5}), "reasoning_budget"),
    ] {
        let (status, answer) = ask(changes.clone());
        assert_eq!(
            (status, answer["error"]["param"].as_str()),
            (400, Some(param)),
            "{changes}: {answer}"
        );
    }
    // What is forced is called all the same.
    let named = json!({"type": "function", "function": {"name": "stop"}});
    let (status, answer) = ask(json!({"tools": tools(), "tool_choice": named}));
    assert_eq!(status, 200, "{answer}");
    assert_eq!(
        answer["choices"][0]["message"]["tool_calls"][0]["function"],
        json!({"name": "stop", "arguments": "{}"})
    );
    // In a conversation a template without calls gets them as text.
    let asked = json!({"role": "user", "content": "A"});
    let called = |content: Value, calls: Value| json!({"role": "assistant", "content": content, "tool_calls": calls});
    let call = json!([{"id": "a", "type": "function", "function": {"name": "stop", "arguments": "{\"n\":[1]}"}}]);
    let result = json!({"role": "tool", "tool_call_id": "a", "content": "Done."});
    let text = "{\"name\": \"stop\", \"arguments\": {\"n\":[1]}}";
    let told = |messages: Value| {
        let (status, answer) = ask(json!({"messages": messages}));
        assert_eq!(status, 200, "{answer}");
        (
            answer["usage"]["prompt_tokens"].clone(),
            answer["choices"][0]["message"]["content"].clone(),
        )
    };
    for (content, expected) in [
        (Value::Null, text.to_owned()),
        (json!("Well."), format!("Well.\n{text}")),
    ] {
        let expected = told(json!([asked, {"role": "assistant", "content": expected}, result]));
        assert_eq!(told(json!([asked, called(content, call.clone()), result])), expected);
    }
    // Tools that may not be called change nothing.
    let (status, answer) = ask(json!({"tools": tools(), "tool_choice": "none"}));
    assert_eq!((status, answer["choices"][0]["message"].get("tool_calls")), (200, None));
}
