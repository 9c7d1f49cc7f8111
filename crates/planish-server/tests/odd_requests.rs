//! Requests changed at random: each is answered or refused, none is a failure of the server's, and the server goes on.
//! `PLANISH_ROUNDS` requests.

#[allow(dead_code, reason = "the fuzz targets use the rest")]
#[path = "../../../fuzz/src/mutate.rs"]
mod mutate;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mutate::{Random, change, change_words};
use planish::{AutoModelForCausalLM, Engine, EngineOptions};
use planish_server::{ServerOptions, serve};

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";

const BODIES: [(&str, &str); 9] = [
    (
        "/v1/chat/completions",
        r##"{"messages": [{"role": "user", "content": "Once"}], "max_tokens": 2, "logprobs": true, "top_logprobs": 2, "logit_bias": {"5": 1.5},
            "presence_penalty": 0.5, "frequency_penalty": -0.5, "response_format": {"type": "json_schema", "json_schema": {"name": "a",
            "schema": {"$defs": {"b": {"type": "string", "pattern": "^a+$"}}, "type": "object", "properties": {"c": {"$ref": "#/$defs/b"},
            "d": {"type": "array", "items": {"anyOf": [{"type": "integer", "minimum": 0}, {"enum": ["x", null]}]}, "maxItems": 3}},
            "required": ["c"], "additionalProperties": false}}}}"##,
    ),
    (
        "/v1/chat/completions",
        r#"{"messages": [{"role": "user", "content": "Once"}], "max_tokens": 2, "tools": [{"type": "function", "function": {"name": "f",
            "description": "A", "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false, "reasoning_effort": "none"}"#,
    ),
    (
        "/v1/completions",
        r#"{"prompt": "Once", "max_tokens": 2, "logprobs": 2, "stream": true, "grammar": "start: A \"b\"\nA: /[a-c]{1,3}/", "regex": null}"#,
    ),
    (
        "/v1/chat/completions",
        r#"{"model": "story", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": [{"type": "text", "text": "Once"}]},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "7"}], "max_tokens": 2, "temperature": 0.5, "top_p": 0.9, "stop": ["\n"], "seed": 7, "n": 1,
            "chat_template_kwargs": {"enable_thinking": false}}"#,
    ),
    (
        "/v1/chat/completions",
        r#"{"model": "story", "messages": [{"role": "user", "content": "Once"}], "max_tokens": 2, "stream": true, "stream_options": {"include_usage": true}}"#,
    ),
    (
        "/v1/completions",
        r#"{"model": "story", "prompt": ["Once upon", "A"], "max_tokens": 2, "temperature": 0, "top_k": 3, "min_p": 0.1, "repetition_penalty": 1.1, "logprobs": null}"#,
    ),
    (
        "/v1/messages",
        r#"{"model": "story", "max_tokens": 2, "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
            "messages": [{"role": "user", "content": "Once"}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "a", "signature": ""},
            {"type": "tool_use", "id": "a", "name": "f", "input": {}}]}, {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "a",
            "content": [{"type": "text", "text": "7"}]}]}], "stop_sequences": ["x"], "temperature": 0.5, "top_k": 3, "stream": true,
            "thinking": {"type": "adaptive"}, "output_config": {"effort": "low"}}"#,
    ),
    (
        "/v1/responses",
        r#"{"model": "story", "max_output_tokens": 2, "instructions": "Be brief.", "input": [{"role": "user", "content": [{"type": "input_text",
            "text": "Once"}]}, {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "a"}]}, {"type": "function_call",
            "name": "f", "call_id": "a", "arguments": "{}"}, {"type": "function_call_output", "call_id": "a", "output": "7"}],
            "text": {"format": {"type": "text"}}, "reasoning": {"effort": "low"}, "tools": [{"type": "web_search"}], "store": false}"#,
    ),
    (
        "/v1/messages/count_tokens",
        r#"{"model": "story", "system": "Be brief.", "messages": [{"role": "user", "content": [{"type": "text", "text": "Once"}]}]}"#,
    ),
];

/// What comes back, as far as it comes in a while: a long answer is left.
fn answer(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    // The server may have refused it before all of it was there.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

fn post(path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

#[test]
fn no_request_is_a_failure_of_the_server() {
    let rounds: u64 = std::env::var("PLANISH_ROUNDS").map_or(150, |rounds| rounds.parse().unwrap());
    let builder = AutoModelForCausalLM::demo()
        .chat_template(TEMPLATE.to_owned())
        .threads(1);
    let model = builder.load().unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&over);
    let (sender, receiver) = std::sync::mpsc::channel();
    let server = std::thread::spawn(move || {
        let engine = Engine::start(&model, EngineOptions::default());
        let options = ServerOptions {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            model: "story".to_owned(),
            ..ServerOptions::default()
        };
        serve(
            engine,
            options,
            |address| sender.send(address).unwrap(),
            || ended.load(Ordering::Relaxed),
        )
        .unwrap();
    });
    let address = receiver.recv().unwrap();
    let (mut answered, mut refused) = (0, 0);
    for round in 0..rounds {
        let random = &mut Random::new(round + 1);
        let (path, body) = BODIES[random.below(BODIES.len())];
        let mut body = body.as_bytes().to_vec();
        let mut request = match random.below(8) {
            0 => post(path, &body),
            1..7 => {
                change_words(&mut body, random);
                post(path, &body)
            }
            _ => {
                change(&mut body, random);
                post(path, &body)
            }
        };
        // Sometimes the head.
        if random.below(16) == 0 {
            change(&mut request, random);
        }
        let answer = answer(address, &request);
        let status = answer
            .split_whitespace()
            .nth(1)
            .and_then(|status| status.parse::<u16>().ok());
        match status {
            Some(200) => answered += 1,
            Some(400..500) => refused += 1,
            // Left before it began to answer.
            None => {}
            other => panic!(
                "round {round}: {other:?} to {}\n{answer}",
                String::from_utf8_lossy(&request)
            ),
        }
    }
    let alive = answer(
        address,
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    );
    assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    println!("{rounds} requests: {answered} answered, {refused} refused");
    assert!(answered > rounds / 10 && refused > rounds / 10);
    over.store(true, Ordering::Relaxed);
    server.join().unwrap();
}
