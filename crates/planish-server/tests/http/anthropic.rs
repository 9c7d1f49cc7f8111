//! Messages as Anthropic's clients send and read them.

use planish::{EngineOptions, Finish, GenerationConfig, Message};
use planish_server::ServerOptions;
use serde_json::{Value, json};

use crate::server::{Running, agent, alone, config, model, options};

/// The events of a stream; the line before each says its type.
fn events(server: &Running, body: &Value) -> Vec<Value> {
    let mut response = agent().post(server.url("/v1/messages")).send_json(body).unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let text = response.body_mut().read_to_string().unwrap();
    let events = text.split_terminator("\n\n").map(|event| {
        let (kind, data) = event.split_once('\n').unwrap();
        let data: Value = serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(kind, format!("event: {}", data["type"].as_str().unwrap()));
        data
    });
    events.collect()
}

#[test]
fn messages_are_answered_whole_and_in_events() {
    let server = Running::usual();
    let text = |text: &str| json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}});
    let mut body = json!({
        "model": "story", "max_tokens": 24, "temperature": 0, "metadata": {"user_id": "me"},
        "system": [text("Tell stories."), text("Be kind.")],
        "messages": [
            {"role": "user", "content": "Once upon"},
            {"role": "user", "content": [text("a time")]},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm.", "signature": ""}, text("there was")]},
            {"role": "user", "content": [text("a cat")]},
        ],
    });
    let expected = [
        Message::new("system", "Tell stories.\n\nBe kind."),
        Message::new("user", "Once upon\n\na time"),
        Message::answer("there was", "Hm."),
        Message::new("user", "a cat"),
    ];
    let prompt = model().tokenizer().unwrap().apply_chat_template(&expected).unwrap();
    let expected = alone(&prompt, &config(24), false);
    let reason = match expected.answer.finish {
        Finish::MaxNewTokens => "max_tokens",
        _ => "end_turn",
    };
    let (status, count) = server.post("/v1/messages/count_tokens", &body);
    assert_eq!((status, count), (200, json!({"input_tokens": prompt.len()})));

    let (status, answer) = server.post("/v1/messages", &body);
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["content"], json!([{"type": "text", "text": expected.text}]));
    assert_eq!(
        (&answer["type"], &answer["role"]),
        (&json!("message"), &json!("assistant"))
    );
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!(reason), &Value::Null)
    );
    let tokens = expected.answer.tokens.len();
    let usage = |cached: usize| {
        json!({
            "input_tokens": prompt.len() - cached, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
            "output_tokens": tokens,
        })
    };
    assert_eq!(answer["usage"], usage(0));

    // In events; the prompt is remembered now, which the first event says.
    body["stream"] = json!(true);
    let events = events(&server, &body);
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let pieces = kinds.len() - 5;
    let mut expected_kinds = vec!["message_start", "content_block_start"];
    expected_kinds.extend(vec!["content_block_delta"; pieces]);
    expected_kinds.extend(["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(kinds, expected_kinds);
    let message = &events[0]["message"];
    assert_eq!(
        (&message["content"], &message["stop_reason"]),
        (&json!([]), &Value::Null)
    );
    let mut begun = usage(prompt.len() - 1);
    begun["output_tokens"] = json!(0);
    assert_eq!(message["usage"], begun);
    let said: String = events
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str())
        .collect();
    assert_eq!(said, expected.text);
    let last = &events[events.len() - 2];
    assert_eq!(last["delta"], json!({"stop_reason": reason, "stop_sequence": null}));
    assert_eq!(last["usage"], usage(prompt.len() - 1));
}

#[test]
fn the_stop_sequence_is_told() {
    let server = Running::usual();
    let prompt = model()
        .tokenizer()
        .unwrap()
        .apply_chat_template(&[Message::new("user", "Once")])
        .unwrap();
    let whole = alone(&prompt, &config(40), false).text;
    let stop = whole.split_whitespace().nth(3).unwrap();
    let stops = GenerationConfig {
        stop_strings: Some(vec!["never there".to_owned(), stop.to_owned()]),
        ..config(40)
    };
    let expected = alone(&prompt, &stops, false);
    assert_eq!(expected.stop.as_deref(), Some(stop));
    let body = json!({
        "max_tokens": 40, "temperature": 0, "stop_sequences": ["never there", stop],
        "messages": [{"role": "user", "content": "Once"}],
    });
    let (_, answer) = server.post("/v1/messages", &body);
    assert_eq!(
        (&answer["stop_reason"], &answer["stop_sequence"]),
        (&json!("stop_sequence"), &json!(stop))
    );
    assert_eq!(answer["content"][0]["text"].as_str().unwrap_or_default(), expected.text);
}

#[test]
fn refusals_have_anthropics_form() {
    let server = Running::usual();
    let usual = json!({"max_tokens": 1, "messages": [{"role": "user", "content": "A"}]});
    let message = |content: Value| json!([{"role": "user", "content": content}]);
    for (changes, said) in [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"top_k": "many"}), "top_k"),
        (json!({"stop_sequences": [1]}), "stop_sequences"),
        (json!({"system": 5}), "system"),
        (json!({"thinking": {"type": "deep"}}), "thinking.type"),
        (json!({"tools": [{"name": "f"}]}), "tools[0].input_schema"),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "web_search",
        ),
        (json!({"tool_choice": {"type": "tool"}}), "tool_choice.name"),
        (json!({"service_tier": "fast"}), "service_tier"),
        (json!({"container": "c"}), "container"),
        (json!({"mcp_servers": [{}]}), "mcp_servers"),
        (
            json!({"output_config": {"task_budget": {}}}),
            "output_config.task_budget",
        ),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "tool", "content": "A"}]}),
            "messages[0].role",
        ),
        (
            json!({"messages": message(json!([{"type": "image"}]))}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": message(json!([{"type": "text"}]))}),
            "messages[0].content[0].text",
        ),
        (
            json!({"messages": message(json!([{"type": "tool_result"}]))}),
            "tool_use_id",
        ),
        (
            json!({"messages": [{"role": "user", "content": "A"}, {"role": "assistant", "content": "B"}]}),
            "messages[1]",
        ),
    ] {
        let mut body = usual.clone();
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (status, answer) = server.post("/v1/messages", &body);
        let error = &answer["error"];
        assert_eq!(
            (status, &answer["type"], &error["type"]),
            (400, &json!("error"), &json!("invalid_request_error")),
            "{changes}: {answer}"
        );
        assert!(answer["request_id"].as_str().unwrap().starts_with("req-"), "{answer}");
        assert!(error["message"].as_str().unwrap().contains(said), "{changes}: {answer}");
    }
    let (status, answer) = server.post(
        "/v1/messages",
        &json!({"model": "other", "max_tokens": 1, "messages": message(json!("A"))}),
    );
    assert_eq!((status, &answer["error"]["type"]), (404, &json!("not_found_error")));
    // Also what no route of its own refuses.
    let locked = Running::start(
        ServerOptions {
            api_key: Some("secret".to_owned()),
            ..options()
        },
        EngineOptions::default(),
    );
    let (status, answer) = locked.post("/v1/messages", &usual);
    assert_eq!(
        (status, &answer["error"]["type"]),
        (401, &json!("authentication_error"))
    );
}

#[test]
fn models_are_listed_as_the_client_reads_them() {
    let server = Running::usual();
    let get = |path: &str| -> Value {
        let request = agent().get(server.url(path)).header("anthropic-version", "2023-06-01");
        request.call().unwrap().body_mut().read_json().unwrap()
    };
    let list = get("/v1/models");
    assert_eq!((&list["first_id"], &list["has_more"]), (&json!("story"), &json!(false)));
    let card = get("/v1/models/story");
    assert_eq!(list["data"], json!([card]));
    assert_eq!((&card["type"], &card["id"]), (&json!("model"), &json!("story")));
    let created = card["created_at"].as_str().unwrap();
    assert!(
        created.starts_with("20") && created.ends_with('Z') && created.contains('T'),
        "{created}"
    );
    assert_eq!(get("/v1/models/other")["type"], "error");
}
