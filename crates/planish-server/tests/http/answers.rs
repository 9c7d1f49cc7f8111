//! Answers whole and in pieces, and refusals by name.

use planish::{Finish, GenerationConfig, Message};
use serde_json::{Value, json};

use crate::server::{Running, agent, alone, config, model};

#[test]
fn answers_are_the_models_whole_and_in_pieces() {
    let server = Running::usual();
    let messages = json!([
        {"role": "developer", "content": "Tell stories."},
        {"role": "user", "content": [{"type": "text", "text": "Once upon "}, {"type": "text", "text": "a time"}]},
    ]);
    let expected = [
        Message::new("system", "Tell stories."),
        Message::new("user", "Once upon a time"),
    ];
    let prompt = model().tokenizer().unwrap().apply_chat_template(&expected).unwrap();
    let expected = alone(&prompt, &config(24), false);
    let reason = match expected.answer.finish {
        Finish::MaxNewTokens => "length",
        _ => "stop",
    };

    let mut body = json!({"model": "story", "messages": messages, "max_tokens": 24, "temperature": 0});
    let (status, answer) = server.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    let choice = &answer["choices"][0];
    assert_eq!(
        choice["message"],
        json!({"role": "assistant", "content": expected.text})
    );
    assert_eq!(
        (&choice["finish_reason"], &choice["index"]),
        (&json!(reason), &json!(0))
    );
    let tokens = expected.answer.tokens.len();
    let usage = json!({
        "prompt_tokens": prompt.len(), "completion_tokens": tokens, "total_tokens": prompt.len() + tokens,
        "prompt_tokens_details": {"cached_tokens": 0}, "completion_tokens_details": {"reasoning_tokens": 0},
    });
    assert_eq!(answer["usage"], usage);
    assert_eq!(
        (&answer["object"], &answer["model"]),
        (&json!("chat.completion"), &json!("story"))
    );

    // The same in pieces; its prompt is remembered now.
    body["stream"] = json!(true);
    body["stream_options"] = json!({"include_usage": true});
    let mut events = server.stream("/v1/chat/completions", &body);
    assert_eq!(events.pop().unwrap(), "[DONE]");
    let events: Vec<Value> = events
        .iter()
        .map(|event| serde_json::from_str(event).unwrap())
        .collect();
    let (last, pieces) = events.split_last().unwrap();
    assert_eq!(
        (&last["choices"], &last["usage"]["completion_tokens"]),
        (&json!([]), &json!(tokens))
    );
    assert_eq!(
        last["usage"]["prompt_tokens_details"]["cached_tokens"],
        json!(prompt.len() - 1)
    );
    assert_eq!(
        pieces[0]["choices"][0]["delta"],
        json!({"role": "assistant", "content": ""})
    );
    let text = |events: &[Value]| -> String {
        let pieces = events
            .iter()
            .filter_map(|event| event["choices"][0]["delta"]["content"].as_str());
        pieces.collect()
    };
    assert_eq!(text(pieces), expected.text);
    assert_eq!(pieces.last().unwrap()["choices"][0]["finish_reason"], reason);
    assert!(
        pieces
            .iter()
            .all(|event| event["id"] == events[0]["id"] && event.get("usage").is_none())
    );
}

#[test]
fn completions_go_on_with_texts_and_tokens() {
    let server = Running::usual();
    let tokenizer = model().tokenizer().unwrap();
    let (one, two) = (tokenizer.encode("The cat").unwrap(), tokenizer.encode("A dog").unwrap());
    let body = json!({"prompt": ["The cat", two], "max_tokens": 9, "temperature": 0, "stop": ["."]});
    let (status, answer) = server.post("/v1/completions", &body);
    assert_eq!(status, 200, "{answer}");
    let stopped = GenerationConfig {
        stop_strings: Some(vec![".".to_owned()]),
        ..config(9)
    };
    for (index, prompt) in [&one, &two].into_iter().enumerate() {
        let choice = &answer["choices"][index];
        assert_eq!(
            (&choice["text"], &choice["index"]),
            (&json!(alone(prompt, &stopped, true).text), &json!(index))
        );
    }
    assert_eq!(answer["usage"]["prompt_tokens"], json!(one.len() + two.len()));

    // Several answers from one prompt, each by the seed that follows the last one's.
    let body = json!({"prompt": one, "max_tokens": 9, "temperature": 1, "seed": 7, "n": 3, "top_k": 0, "top_p": 0.9});
    let (_, answer) = server.post("/v1/completions", &body);
    for index in 0..3 {
        let drawn = GenerationConfig {
            temperature: Some(1.0),
            seed: Some(7 + index),
            top_k: Some(0),
            top_p: Some(0.9),
            ..config(9)
        };
        assert_eq!(
            answer["choices"][index as usize]["text"],
            json!(alone(&one, &drawn, true).text)
        );
    }
    assert_eq!(
        answer["usage"]["prompt_tokens"],
        json!(one.len()),
        "a prompt counts once"
    );

    let (_, tokens) = server.post("/v1/tokenize", &json!({"prompt": "The cat"}));
    assert_eq!(tokens, json!({"count": one.len(), "tokens": one}));
    let (_, text) = server.post("/v1/detokenize", &json!({"tokens": one}));
    assert_eq!(text, json!({"prompt": "The cat"}));
}

#[test]
fn clients_at_once_get_what_they_get_alone() {
    let server = Running::usual();
    let asked: Vec<(String, usize)> = (0..16)
        .map(|index| (format!("Once there were {index} dogs"), 12 + index))
        .collect();
    let found: Vec<Value> = std::thread::scope(|scope| {
        let threads: Vec<_> = asked
            .iter()
            .map(|(prompt, tokens)| {
                let body = json!({"prompt": prompt, "max_tokens": tokens, "temperature": 0});
                let server = &server;
                scope.spawn(move || server.post("/v1/completions", &body).1)
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for ((prompt, tokens), found) in asked.iter().zip(&found) {
        let prompt = model().tokenizer().unwrap().encode(prompt).unwrap();
        assert_eq!(
            found["choices"][0]["text"],
            json!(alone(&prompt, &config(*tokens), true).text)
        );
    }
    let (status, text) = server.get("/metrics");
    assert_eq!(status, 200);
    assert!(
        text.contains("planish_requests_total{route=\"/v1/completions\",status=\"200\"} 16\n"),
        "{text}"
    );
    let generated: usize = asked.iter().map(|(_, tokens)| tokens).sum();
    assert!(
        text.contains(&format!("planish_generation_tokens_total {generated}\n")),
        "{text}"
    );
    assert!(
        text.contains("planish_time_to_first_token_seconds_count 16\n"),
        "{text}"
    );
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    let server = Running::usual();
    let refused = |path: &str, changes: Value| {
        let mut body = match path {
            "/v1/completions" => json!({"prompt": "A"}),
            _ => json!({"messages": [{"role": "user", "content": "A"}]}),
        };
        body["max_tokens"] = json!(1);
        for (key, value) in changes.as_object().unwrap() {
            body[key] = value.clone();
        }
        let (status, answer) = server.post(path, &body);
        let error = &answer["error"];
        assert_eq!(
            error["type"],
            if status == 404 {
                "not_found_error"
            } else {
                "invalid_request_error"
            },
            "{answer}"
        );
        (
            status,
            error["param"].as_str().unwrap_or_default().to_owned(),
            error["message"].to_string(),
        )
    };
    let chat = "/v1/chat/completions";
    for (changes, param) in [
        (json!({"logprobs": 3}), "logprobs"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logprobs": true, "top_logprobs": 21}), "top_logprobs"),
        (json!({"logit_bias": {"5": 101}}), "logit_bias"),
        (json!({"logit_bias": {"dog": 1}}), "logit_bias"),
        (json!({"logit_bias": {"1000000": 1}}), "logit_bias"),
        (json!({"presence_penalty": 2.5}), "presence_penalty"),
        (json!({"frequency_penalty": "much"}), "frequency_penalty"),
        (json!({"response_format": "json"}), "response_format.type"),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": [{"type": "function"}]}), "tools[0].function.name"),
        (json!({"tools": [{"type": "retrieval"}]}), "tools[0].type"),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f"}}]}),
            "tool_choice",
        ),
        (
            json!({"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "function", "function": {"name": "g"}}}),
            "tool_choice",
        ),
        (json!({"reasoning_budget": 7}), "reasoning_budget"),
        (json!({"tool_choice": "required"}), "tool_choice"),
        (json!({"store": true}), "store"),
        (json!({"audio": {}}), "audio"),
        (json!({"temperature": 3}), "temperature"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"top_p": -0.1}), "top_p"),
        (json!({"n": 0}), "n"),
        (json!({"n": 1000}), "n"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -5}), "max_tokens"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"stop": [1]}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": {}}), "stream_options"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": "A"}), "messages"),
        (
            json!({"messages": [{"role": "wizard", "content": "A"}]}),
            "messages[0].role",
        ),
        (json!({"messages": [{"role": "user"}]}), "messages[0].content"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content[0]",
        ),
    ] {
        let (status, found, message) = refused(chat, changes.clone());
        assert_eq!((status, found.as_str()), (400, param), "{changes}: {message}");
        assert!(message.contains(param), "{changes}: {message}");
    }
    assert_eq!(refused(chat, json!({"model": "other"})).0, 404);
    for changes in [
        json!({"prompt": {}}),
        json!({"prompt": []}),
        json!({"prompt": [[]]}),
        json!({"prompt": [-1]}),
    ] {
        let (status, _, message) = refused("/v1/completions", changes.clone());
        assert_eq!(status, 400, "{changes}: {message}");
    }
    let (status, answer) = server.post("/v1/completions", &json!({"prompt": vec![5; 100_000], "max_tokens": 1}));
    assert_eq!(
        (status, &answer["error"]["code"]),
        (400, &json!("context_length_exceeded"))
    );
    // What says the same as silence is taken; what nobody knows is told.
    let harmless = json!({
        "messages": [{"role": "user", "content": "A"}], "max_completion_tokens": 2, "logprobs": false, "logit_bias": {},
        "presence_penalty": 0, "frequency_penalty": 0.0, "response_format": {"type": "text"}, "tools": [], "user": "me",
        "metadata": {},
    });
    let response = agent().post(server.url(chat)).send_json(&harmless).unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["x-planish-ignored"]),
        (200, &"user, metadata".parse().unwrap())
    );
}
