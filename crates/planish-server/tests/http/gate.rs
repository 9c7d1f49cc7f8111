//! Who may ask and with what; how clients leave and how the server ends.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use planish::{Engine, EngineOptions};
use planish_server::{Error, ServerOptions, serve};
use serde_json::{Value, json};

use crate::server::{Running, agent, model, options};

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

/// Stories that nobody hears to their end: there are too many of them.
const STORIES: usize = 100;

#[test]
fn clients_that_go_free_their_places_and_a_full_queue_says_so() {
    let engine = EngineOptions {
        answers: Some(1),
        queue: STORIES,
        ..EngineOptions::default()
    };
    let server = Running::start(options(), engine);
    let ask = |stories: usize| {
        let body =
            json!({"prompt": "Once", "max_tokens": 1000, "stream": true, "temperature": 1, "n": stories}).to_string();
        let mut stream = TcpStream::connect(server.address).unwrap();
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n";
        write!(stream, "{head}Content-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut begun = [0; 12];
        stream.read_exact(&mut begun).unwrap();
        (stream, String::from_utf8(begun.to_vec()).unwrap())
    };
    let mut clients = vec![ask(STORIES)];
    wait_for("the first runs", || status(&server)["running"] == 1);
    // While a story ends there is a place; then there is none.
    while clients.last().unwrap().1 == "HTTP/1.1 200" {
        assert!(clients.len() < 2 * STORIES, "{}", status(&server));
        clients.push(ask(1));
    }
    let (mut refused, code) = clients.pop().unwrap();
    assert_eq!(code, "HTTP/1.1 429");
    let mut rest = [0; 600];
    let length = refused.read(&mut rest).unwrap();
    let rest = String::from_utf8_lossy(&rest[..length]).into_owned();
    assert!(rest.contains("retry-after: 1\r\n"), "{rest}");
    drop(clients);
    wait_for("all are gone", || {
        let status = status(&server);
        status["running"] == 0 && status["waiting"] == 0
    });
    let body = json!({"prompt": "A", "max_tokens": 2});
    assert_eq!(server.post("/v1/completions", &body).0, 200);
}

#[test]
fn who_is_being_answered_when_the_server_ends_is_told() {
    let slow = ServerOptions {
        grace: Duration::from_millis(100),
        ..options()
    };
    let mut server = Running::start(slow, EngineOptions::default());
    let url = server.url("/v1/chat/completions");
    let messages = json!([{"role": "user", "content": "Once"}]);
    let body = json!({"messages": messages, "max_tokens": 1000, "temperature": 1, "stream": true, "n": STORIES});
    let client = std::thread::spawn(move || {
        let mut response = agent().post(url).send_json(&body).unwrap();
        response.body_mut().read_to_string().unwrap()
    });
    wait_for("it runs", || status(&server)["running"] != 0);
    server.end();
    let text = client.join().unwrap();
    let last = text.trim_end().lines().last().unwrap();
    assert!(
        last.contains("shutting down") && last.contains("overloaded_error"),
        "{last}"
    );
    assert!(!text.contains("[DONE]"));
}
