//! Responses as OpenAI's newer clients ask for them.

use planish::Message;
use serde_json::{Value, json};

use crate::server::{Running, agent, alone, config, model};

#[test]
fn responses_come_whole_and_in_events() {
    let server = Running::usual();
    let mut body = json!({
        "model": "story", "max_output_tokens": 24, "temperature": 0, "instructions": "Tell stories.", "store": false,
        "metadata": {"who": "me"}, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "k",
        "input": [
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Once"}]},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "there was"}]},
            {"role": "user", "content": "a cat"},
        ],
    });
    let expected = [
        Message::new("system", "Tell stories.\n\nBe kind."),
        Message::new("user", "Once"),
        Message::answer("there was", "Hm."),
        Message::new("user", "a cat"),
    ];
    let prompt = model().tokenizer().unwrap().apply_chat_template(&expected).unwrap();
    let expected = alone(&prompt, &config(24), false);
    let cut = expected.answer.finish == planish::Finish::MaxNewTokens;
    let status = if cut { "incomplete" } else { "completed" };

    let (code, whole) = server.post("/v1/responses", &body);
    assert_eq!((code, &whole["status"]), (200, &json!(status)), "{whole}");
    let item = &whole["output"][0];
    assert_eq!((&item["type"], &item["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(item["content"][0]["text"], expected.text);
    assert_eq!(
        (&whole["metadata"]["who"], &whole["instructions"]),
        (&json!("me"), &json!("Tell stories."))
    );
    let (input, output) = (prompt.len(), expected.answer.tokens.len());
    let tokens = |response: &Value, cached: usize| {
        let usage = &response["usage"];
        assert_eq!(
            (&usage["input_tokens"], &usage["output_tokens"]),
            (&json!(input), &json!(output))
        );
        assert_eq!(usage["input_tokens_details"]["cached_tokens"], cached);
    };
    tokens(&whole, 0);
    assert_eq!(
        whole["incomplete_details"],
        if cut {
            json!({"reason": "max_output_tokens"})
        } else {
            Value::Null
        }
    );

    body["stream"] = json!(true);
    let mut response = agent().post(server.url("/v1/responses")).send_json(&body).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    let events: Vec<Value> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .map(|data| serde_json::from_str(data).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    let mut in_order = vec!["created", "in_progress", "output_item.added", "content_part.added"];
    in_order.extend(vec!["output_text.delta"; kinds.len() - 8]);
    in_order.extend(["output_text.done", "content_part.done", "output_item.done", status]);
    let in_order: Vec<String> = in_order.iter().map(|kind| format!("response.{kind}")).collect();
    assert_eq!(kinds, in_order);
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], index);
    }
    let said: String = events.iter().filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(said, expected.text);
    let last = &events.last().unwrap()["response"];
    assert_eq!(last["output"][0]["content"], item["content"]);
    tokens(last, input - 1);
}

#[test]
fn responses_tell_how_likely_tokens_were() {
    let server = Running::usual();
    let mut body = json!({
        "input": "Once", "max_output_tokens": 20, "temperature": 0, "top_logprobs": 2,
        "include": ["message.output_text.logprobs"],
    });
    let chat = json!({
        "messages": [{"role": "user", "content": "Once"}], "max_tokens": 20, "temperature": 0, "logprobs": true, "top_logprobs": 2,
    });
    let (_, expected) = server.post("/v1/chat/completions", &chat);
    let expected = &expected["choices"][0]["logprobs"]["content"];
    assert!(expected.as_array().unwrap().len() > 10, "{expected}");
    let (status, whole) = server.post("/v1/responses", &body);
    assert_eq!((status, &whole["output"][0]["content"][0]["logprobs"]), (200, expected));
    assert_eq!(whole["top_logprobs"], 2);

    body["stream"] = json!(true);
    let mut response = agent().post(server.url("/v1/responses")).send_json(&body).unwrap();
    let text = response.body_mut().read_to_string().unwrap();
    let data = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> = data.map(|data| serde_json::from_str(data).unwrap()).collect();
    let of_kind = |kind: &'static str| events.iter().filter(move |event| event["type"] == kind);
    let pieces = of_kind("response.output_text.delta").flat_map(|event| event["logprobs"].as_array().unwrap().clone());
    let pieces: Vec<Value> = pieces.collect();
    assert_eq!(pieces, expected.as_array().unwrap()[..pieces.len()]);
    assert!(
        pieces.len() + 2 > expected.as_array().unwrap().len(),
        "only the last may have no text"
    );
    let done = of_kind("response.output_text.done").next().unwrap();
    assert_eq!(&done["logprobs"], expected);

    // Without being asked for, nothing is told.
    body["include"] = json!([]);
    body["top_logprobs"] = json!(0);
    body["stream"] = json!(false);
    let (_, silent) = server.post("/v1/responses", &body);
    assert_eq!(silent["output"][0]["content"][0]["logprobs"], json!([]));
}

#[test]
fn what_responses_cannot_do_is_refused_by_name() {
    let server = Running::usual();
    for (changes, param) in [
        (json!({"previous_response_id": "resp_1"}), "previous_response_id"),
        (json!({"store": true}), "store"),
        (json!({"background": true}), "background"),
        (json!({"conversation": "c"}), "conversation"),
        (json!({"truncation": "auto"}), "truncation"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"include": ["file_search_call.results"]}), "include"),
        (json!({"include": "all"}), "include"),
        (
            json!({"include": ["message.output_text.logprobs"], "top_logprobs": 21}),
            "top_logprobs",
        ),
        (json!({"text": {"verbosity": "low"}}), "text.verbosity"),
        (json!({"tool_choice": {"type": "web_search"}}), "tool_choice"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"input": null}), "input"),
        (
            json!({"input": [{"type": "item_reference", "id": "a"}]}),
            "input[0].type",
        ),
        (json!({"input": [{"role": "wizard", "content": "A"}]}), "input[0].role"),
        (json!({"input": [{"role": "user"}]}), "input[0].content"),
        (
            json!({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}),
            "input[0].content[0]",
        ),
        (
            json!({"input": [{"type": "function_call", "name": "f", "call_id": "a"}]}),
            "input[0].arguments",
        ),
    ] {
        let mut body = json!({"input": "A", "max_output_tokens": 1});
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (status, answer) = server.post("/v1/responses", &body);
        assert_eq!(
            (status, &answer["error"]["param"]),
            (400, &json!(param)),
            "{changes}: {answer}"
        );
    }
    // Tools that nobody could run are told, not refused: agents send them with all others.
    let body = json!({"input": "A", "max_output_tokens": 1, "tools": [{"type": "web_search"}]});
    let response = agent().post(server.url("/v1/responses")).send_json(&body).unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-planish-ignored"]),
        (200, &"tools[0]".parse().unwrap())
    );
}
