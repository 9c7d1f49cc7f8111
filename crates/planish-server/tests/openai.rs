//! The server as a client meets it: answers whole and in pieces, refusals by name, who may ask, and how it ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use planish::{AutoModelForCausalLM, CausalLM, Engine, EngineOptions, Finish, GenerationConfig, Message};
use planish_server::{Error, ServerOptions, serve};
use serde_json::{Value, json};

/// `ChatML`'s way to write messages; the demo model has no template of its own.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";

fn model() -> &'static CausalLM {
    static MODEL: OnceLock<CausalLM> = OnceLock::new();
    MODEL.get_or_init(|| {
        let builder = AutoModelForCausalLM::demo()
            .exact(true)
            .chat_template(TEMPLATE.to_owned());
        builder.load().unwrap()
    })
}

/// A server, until it is dropped.
struct Running {
    address: SocketAddr,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(options: ServerOptions, engine: EngineOptions) -> Running {
        let over = Arc::new(AtomicBool::new(false));
        let (sender, receiver) = std::sync::mpsc::channel();
        let ended = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let engine = Engine::start(model(), engine);
            let is_over = || ended.load(Ordering::Relaxed);
            serve(engine, options, |address| sender.send(address).unwrap(), is_over).unwrap();
        });
        Running {
            address: receiver.recv().unwrap(),
            over,
            thread: Some(thread),
        }
    }

    fn usual() -> Running {
        Running::start(options(), EngineOptions::default())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut response = agent().get(self.url(path)).call().unwrap();
        let status = response.status().as_u16();
        (status, response.body_mut().read_to_string().unwrap())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut response = agent().post(self.url(path)).send_json(body).unwrap();
        let status = response.status().as_u16();
        (status, response.body_mut().read_json().unwrap())
    }

    /// The events of a stream, without `data: `.
    fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let mut response = agent().post(self.url(path)).send_json(body).unwrap();
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let lines = BufReader::new(response.body_mut().as_reader()).lines();
        let lines = lines.map(|line| line.unwrap()).filter(|line| !line.is_empty());
        lines
            .map(|line| line.strip_prefix("data: ").unwrap().to_owned())
            .collect()
    }

    /// Bytes as they are; all that comes back.
    fn raw(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn options() -> ServerOptions {
    ServerOptions {
        address: SocketAddr::from(([127, 0, 0, 1], 0)),
        model: "story".to_owned(),
        ..ServerOptions::default()
    }
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false);
    config.build().into()
}

fn alone(prompt: &[u32], config: &GenerationConfig, continues: bool) -> planish::TextAnswer {
    let silent = &mut |_: planish::TextStep<'_>| ControlFlow::Continue(());
    let mut session = model().session();
    match continues {
        true => session.continue_text(prompt, config, silent).unwrap(),
        false => session.generate_text(prompt, config, silent).unwrap(),
    }
}

fn config(max_new_tokens: usize) -> GenerationConfig {
    GenerationConfig {
        max_new_tokens,
        temperature: Some(0.0),
        ..GenerationConfig::default()
    }
}

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
        "prompt_tokens_details": {"cached_tokens": 0},
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
        (json!({"logprobs": true}), "logprobs"),
        (json!({"top_logprobs": 3}), "top_logprobs"),
        (json!({"logit_bias": {"5": 10}}), "logit_bias"),
        (json!({"presence_penalty": 0.5}), "presence_penalty"),
        (json!({"frequency_penalty": -1}), "frequency_penalty"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"tools": [{"type": "function"}]}), "tools"),
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

#[test]
fn bytes_of_any_kind_are_answered() {
    let server = Running::usual();
    let post = |head: &str, body: &str| {
        let length = body.len();
        server.raw(&format!(
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {length}\r\n{head}\r\n{body}"
        ))
    };
    let json = "Content-Type: application/json\r\n";
    let long = format!("{{\"prompt\": \"{}\"}}", "a".repeat(9 << 20));
    for (head, body, code, said) in [
        (json, "{", "400", "line 1"),
        (json, "[]", "400", "a list"),
        (json, "{\"prompt\": \"\\ud800\"}", "400", "JSON"),
        (json, &"[".repeat(100_000), "400", "JSON"),
        (json, &long, "413", "8388608 bytes"),
        ("Content-Type: text/plain\r\n", "{}", "415", "application/json"),
        ("", "{}", "415", "application/json"),
    ] {
        let answer = post(head, body);
        let line = answer.lines().next().unwrap_or_default();
        assert!(
            line.contains(code) && answer.contains(said),
            "{line} of {:.40}: {answer}",
            body
        );
    }
    assert!(server.raw("NONSENSE\r\n\r\n").starts_with("HTTP/1.1 400"));
    let (status, text) = server.get("/v1/nothing");
    assert!(status == 404 && text.contains("/v1/nothing"), "{text}");
    assert_eq!(server.get("/v1/completions").0, 405);
    let (_, models) = server.get("/v1/models");
    let models: Value = serde_json::from_str(&models).unwrap();
    assert_eq!(models["data"][0]["id"], "story");
    assert_eq!(server.get("/v1/models/story").0, 200);
    assert_eq!(server.get("/v1/models/org/other").0, 404);
}

#[test]
fn strangers_are_kept_out() {
    let server = Running::start(
        ServerOptions {
            api_key: Some("secret".to_owned()),
            origins: vec!["https://page.example".to_owned()],
            hosts: vec!["box.example".to_owned()],
            ..options()
        },
        EngineOptions::default(),
    );
    let port = server.address.port();
    let get = |head: String| {
        let answer = server.raw(&format!("GET /v1/models HTTP/1.1\r\nConnection: close\r\n{head}\r\n"));
        answer.split(' ').nth(1).unwrap().to_owned()
    };
    let key = "Authorization: Bearer secret\r\n";
    for (head, code) in [
        (format!("Host: localhost\r\n{key}"), "200"),
        (format!("Host: 127.0.0.1:{port}\r\nx-api-key: secret\r\n"), "200"),
        (format!("Host: box.example:80\r\n{key}"), "200"),
        (format!("Host: [::1]:{port}\r\n{key}"), "200"),
        ("Host: localhost\r\n".to_owned(), "401"),
        ("Host: localhost\r\nAuthorization: Bearer secre\r\n".to_owned(), "401"),
        (format!("Host: evil.example\r\n{key}"), "403"),
        (format!("Host: localhost.evil.example\r\n{key}"), "403"),
        (
            format!("Host: localhost\r\nOrigin: https://evil.example\r\n{key}"),
            "403",
        ),
        (format!("Host: localhost\r\nOrigin: null\r\n{key}"), "403"),
        (
            format!("Host: localhost\r\nOrigin: https://page.example\r\n{key}"),
            "200",
        ),
        (
            format!("Host: localhost:{port}\r\nOrigin: http://localhost:{port}\r\n{key}"),
            "200",
        ),
    ] {
        assert_eq!(get(head.clone()), code, "{head}");
    }
    assert_eq!(server.get("/health").0, 200, "no secret");
    let refused = |options: ServerOptions| {
        let engine = Engine::start(model(), EngineOptions::default());
        serve(engine, options, |_| (), || true).unwrap_err()
    };
    let everywhere = ServerOptions {
        address: SocketAddr::from(([0, 0, 0, 0], 0)),
        ..options()
    };
    assert!(matches!(refused(everywhere), Error::Open { .. }));
    let taken = ServerOptions {
        address: server.address,
        ..options()
    };
    assert!(matches!(refused(taken), Error::Listen { .. }));
    let key = ServerOptions {
        api_key: Some(String::new()),
        ..options()
    };
    assert!(matches!(refused(key), Error::Key));
}

fn status(server: &Running) -> Value {
    serde_json::from_str(&server.get("/health").1).unwrap()
}

fn wait_for(what: &str, is_there: impl Fn() -> bool) {
    let start = Instant::now();
    while !is_there() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn clients_that_go_free_their_places_and_a_full_queue_says_so() {
    let engine = EngineOptions {
        answers: Some(1),
        queue: 1,
        ..EngineOptions::default()
    };
    let server = Running::start(options(), engine);
    // A story that never ends on its own.
    let body =
        json!({"prompt": "Once", "max_tokens": 100_000, "stream": true, "temperature": 1, "seed": 3}).to_string();
    let ask = || {
        let mut stream = TcpStream::connect(server.address).unwrap();
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        stream
    };
    let mut first = ask();
    let mut begun = [0; 12];
    first.read_exact(&mut begun).unwrap();
    assert_eq!(&begun, b"HTTP/1.1 200");
    wait_for("the first runs", || status(&server)["running"] == 1);
    let second = ask();
    wait_for("the second waits", || status(&server)["waiting"] == 1);
    let response = agent()
        .post(server.url("/v1/completions"))
        .send_json(json!({"prompt": "A"}))
        .unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["retry-after"]),
        (429, &"1".parse().unwrap())
    );
    drop(second);
    wait_for("the second is gone", || status(&server)["waiting"] == 0);
    drop(first);
    wait_for("the first is gone", || status(&server)["running"] == 0);
    assert_eq!(
        server
            .post("/v1/completions", &json!({"prompt": "A", "max_tokens": 2}))
            .0,
        200
    );
}

#[test]
fn who_is_being_answered_when_the_server_ends_is_told() {
    let slow = ServerOptions {
        grace: Duration::from_millis(100),
        ..options()
    };
    let mut server = Running::start(slow, EngineOptions::default());
    let url = server.url("/v1/chat/completions");
    let body = json!({"messages": [{"role": "user", "content": "Once"}], "max_tokens": 100_000, "temperature": 1, "stream": true});
    let client = std::thread::spawn(move || {
        let mut response = agent().post(url).send_json(&body).unwrap();
        response.body_mut().read_to_string().unwrap()
    });
    wait_for("it runs", || status(&server)["running"] == 1);
    server.end();
    let text = client.join().unwrap();
    let last = text.trim_end().lines().last().unwrap();
    assert!(
        last.contains("shutting down") && last.contains("overloaded_error"),
        "{last}"
    );
    assert!(!text.contains("[DONE]"));
}
