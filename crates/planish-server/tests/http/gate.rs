//! Who may ask and with what.

use std::net::SocketAddr;

use planish::{Engine, EngineOptions};
use planish_server::{Error, ServerOptions, serve};
use serde_json::Value;

use crate::server::{Running, model, options};

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
