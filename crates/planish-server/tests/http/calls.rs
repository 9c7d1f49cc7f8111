//! Tools in messages and responses: called as in chats, whole and in events.

use serde_json::{Value, json};

use crate::server::{Running, agent};
use crate::tools::{TEMPLATE, server, tools};

/// As Llama's models have it: a call is an object, which a schema can ask for.
const OBJECTS: &str =
    "{# \"parameters\" ipython #}{% for m in messages %}{{ m.role }}: {{ m.content or '' }}\n{% endfor %}assistant:";

/// A name and arguments.
type Calls = Vec<(String, Value)>;

/// How the same thing is asked for: of a chat, in messages, in responses.
#[derive(Clone, Copy)]
struct Asked {
    choice: [&'static str; 3],
    parallel: bool,
    /// What the text of the answer must be.
    schema: Option<&'static str>,
}

const FORCED: Asked = Asked {
    choice: [
        r#"{"type": "function", "function": {"name": "get_weather"}}"#,
        r#"{"type": "tool", "name": "get_weather"}"#,
        r#"{"type": "function", "name": "get_weather"}"#,
    ],
    parallel: false,
    schema: None,
};
const ANY: Asked = Asked {
    choice: [r#""required""#, r#"{"type": "any"}"#, r#""required""#],
    parallel: true,
    schema: None,
};
const AUTO: Asked = Asked {
    choice: [r#""auto""#, r#"{"type": "auto"}"#, r#""auto""#],
    parallel: true,
    schema: Some(r#"{"const": {"name": "stop", "parameters": {}}}"#),
};

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

fn arguments(text: &Value) -> Value {
    // The story model may not come to the end of the last of many calls.
    serde_json::from_str(text.as_str().unwrap()).unwrap_or(json!({}))
}

/// Fields of a request that all three have.
fn body(asked: &Asked, most: &str, messages: &str) -> Value {
    let question = json!([{"role": "user", "content": "Will it rain?"}]);
    let mut body = json!({"temperature": 0, "parallel_tool_calls": asked.parallel});
    body[most] = json!(220);
    body[messages] = question;
    body
}

fn of_chat(server: &Running, asked: &Asked) -> (Calls, Value) {
    let mut body = body(asked, "max_tokens", "messages");
    body["tools"] = tools();
    body["tool_choice"] = value(asked.choice[0]);
    if let Some(schema) = asked.schema {
        let schema = json!({"name": "form", "schema": value(schema)});
        body["response_format"] = json!({"type": "json_schema", "json_schema": schema});
    }
    let (status, answer) = server.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    let calls = choice["message"]["tool_calls"].as_array().unwrap().iter();
    let call = |call: &Value| {
        let function = &call["function"];
        (
            function["name"].as_str().unwrap().to_owned(),
            arguments(&function["arguments"]),
        )
    };
    (calls.map(call).collect(), choice["finish_reason"].clone())
}

/// Tools without the wrapper of chats; `schema` is the name of their schema.
fn flat_tools(schema: &str) -> Vec<Value> {
    let flat = |tool: &Value| {
        let function = &tool["function"];
        let mut flat = json!({"name": function["name"], "description": function["description"]});
        flat[schema] = function["parameters"].clone();
        flat
    };
    tools().as_array().unwrap().iter().map(flat).collect()
}

/// Events of a stream, whose names are those of their data.
fn events(server: &Running, path: &str, mut body: Value) -> Vec<Value> {
    body["stream"] = json!(true);
    let mut response = agent().post(server.url(path)).send_json(&body).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    data.map(value).collect()
}

fn of_messages(server: &Running, asked: &Asked) -> Calls {
    let mut body = body(asked, "max_tokens", "messages");
    body.as_object_mut().unwrap().remove("parallel_tool_calls");
    let mut list = flat_tools("input_schema");
    list.iter_mut().for_each(|tool| {
        tool.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    });
    body["tools"] = Value::from(list);
    body["tool_choice"] = value(asked.choice[1]);
    body["tool_choice"]["disable_parallel_tool_use"] = json!(!asked.parallel);
    if let Some(schema) = asked.schema {
        body["output_config"] = json!({"format": {"type": "json_schema", "schema": value(schema)}});
    }
    let (status, answer) = server.post("/v1/messages", &body);
    assert_eq!(status, 200, "{answer}");
    let mut blocks = answer["content"].as_array().unwrap().clone();
    // An answer that was cut may end in a part of a mark, which is text.
    blocks.retain(|block| block["type"] == "tool_use" || answer["stop_reason"] != "max_tokens");
    let calls: Calls = blocks
        .iter()
        .map(|block| (block["name"].as_str().unwrap().to_owned(), block["input"].clone()))
        .collect();

    let events = events(server, "/v1/messages", body);
    let of_kind = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let mut streamed: Vec<(String, String, usize)> = Vec::new();
    for event in &events {
        let block = &event["content_block"];
        if event["type"] == "content_block_start" && block["type"] == "tool_use" {
            assert_eq!((&block["input"], &event["index"]), (&json!({}), &json!(streamed.len())));
            streamed.push((block["name"].as_str().unwrap().to_owned(), String::new(), 0));
        }
        if let Some(piece) = event["delta"]["partial_json"].as_str() {
            let (_, text, pieces) = streamed.last_mut().unwrap();
            text.push_str(piece);
            *pieces += 1;
        }
    }
    assert_eq!(
        of_kind("content_block_stop").count(),
        of_kind("content_block_start").count()
    );
    let last = of_kind("message_delta").next().unwrap();
    assert_eq!(last["delta"]["stop_reason"], answer["stop_reason"]);
    let long = streamed.iter().any(|(_, _, pieces)| *pieces > 3);
    assert!(
        long || calls.iter().all(|(_, input)| *input == json!({})),
        "{streamed:?}"
    );
    let streamed: Calls = streamed
        .into_iter()
        .map(|(name, text, _)| (name, arguments(&json!(text))))
        .collect();
    assert_eq!(streamed, calls);
    calls
}

fn of_responses(server: &Running, asked: &Asked) -> Calls {
    let mut body = body(asked, "max_output_tokens", "input");
    let mut list = flat_tools("parameters");
    list.iter_mut().for_each(|tool| {
        tool.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        tool["type"] = json!("function");
    });
    body["tools"] = Value::from(list);
    body["tool_choice"] = value(asked.choice[2]);
    if let Some(schema) = asked.schema {
        let format = json!({"type": "json_schema", "name": "form", "schema": value(schema)});
        body["text"] = json!({"format": format});
    }
    let (status, answer) = server.post("/v1/responses", &body);
    assert_eq!(status, 200, "{answer}");
    let of_calls = |answer: &Value| -> Vec<Value> {
        let mut items = answer["output"].as_array().unwrap().clone();
        items.retain(|item| item["type"] == "function_call" || answer["status"] == "completed");
        items
    };
    let items = of_calls(&answer);
    let call = |item: &Value| (item["name"].as_str().unwrap().to_owned(), arguments(&item["arguments"]));
    let calls: Calls = items.iter().map(call).collect();

    let events = events(server, "/v1/responses", body);
    let mut texts = vec![String::new(); items.len()];
    for event in &events {
        let index = event["output_index"].as_u64().map(|index| index as usize);
        match event["type"].as_str().unwrap() {
            "response.function_call_arguments.delta" => texts[index.unwrap()] += event["delta"].as_str().unwrap(),
            "response.function_call_arguments.done" => {
                assert_eq!(event["arguments"], texts[index.unwrap()]);
                assert_eq!(event["name"], calls[index.unwrap()].0);
            }
            "response.output_item.done" if event["item"]["type"] == "function_call" => {
                assert_eq!(event["item"]["arguments"], texts[index.unwrap()])
            }
            _ => {}
        }
    }
    let whole: Vec<&str> = items.iter().map(|item| item["arguments"].as_str().unwrap()).collect();
    assert_eq!(texts, whole);
    let last = of_calls(&events.last().unwrap()["response"]);
    assert_eq!(last.iter().map(call).collect::<Calls>(), calls);
    calls
}

#[test]
fn tools_are_called_as_in_chats() {
    for (template, asked) in [(TEMPLATE, FORCED), (TEMPLATE, ANY), (OBJECTS, AUTO)] {
        let server = server(template);
        let (expected, finish) = of_chat(&server, &asked);
        assert!(!expected.is_empty());
        match asked.choice[0] {
            forced if forced == FORCED.choice[0] => {
                assert_eq!((expected.len(), expected[0].0.as_str()), (1, "get_weather"));
                assert!(
                    (1..=9).contains(&expected[0].1["days"].as_i64().unwrap()),
                    "{expected:?}"
                );
                assert_eq!(finish, "tool_calls");
            }
            // The schema and calls are all that may come; this model calls.
            auto if auto == AUTO.choice[0] => assert_eq!(finish, "tool_calls"),
            _ => assert!(expected.len() > 1, "calls side by side: {expected:?}"),
        }
        assert_eq!(of_messages(&server, &asked), expected);
        assert_eq!(of_responses(&server, &asked), expected);
    }
}
