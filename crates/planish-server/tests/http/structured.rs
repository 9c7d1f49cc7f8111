//! Answers that are made to have a form.

use planish::Constraint;
use serde_json::{Value, json};

use crate::server::{Running, model};
use crate::validator::obeys;

/// One for each kind of rule. They are bounded, so that a model that knows only stories comes to an end. The clients' check takes them too.
fn schemas() -> Vec<Value> {
    serde_json::from_str(include_str!("../schemas.json")).unwrap()
}

fn body(schema: &Value, seed: usize) -> Value {
    json!({
        "messages": [{"role": "user", "content": "Once"}], "max_tokens": 400, "temperature": 1, "seed": seed,
        "response_format": {"type": "json_schema", "json_schema": {"name": "form", "strict": true, "schema": schema}},
    })
}

fn text_of(events: &[String]) -> String {
    let events = events
        .iter()
        .filter_map(|event| serde_json::from_str::<Value>(event).ok());
    let text = |event: Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
    events.filter_map(text).collect()
}

#[test]
fn schemas_are_followed_whole_and_in_pieces() {
    let server = Running::usual();
    let schemas = schemas();
    assert_eq!(schemas.len(), 22);
    std::thread::scope(|scope| {
        for (index, schema) in schemas.iter().enumerate() {
            let server = &server;
            scope.spawn(move || {
                let mut body = body(schema, index);
                let (status, whole) = server.post("/v1/chat/completions", &body);
                assert_eq!(status, 200, "{schema}: {whole}");
                let choice = &whole["choices"][0];
                assert_eq!(choice["finish_reason"], "stop", "{schema}: {choice}");
                let text = choice["message"]["content"].as_str().unwrap();
                let value: Value =
                    serde_json::from_str(text).unwrap_or_else(|error| panic!("{schema}: {text}: {error}"));
                assert!(obeys(schema, &value), "{schema}: {text}");
                body["stream"] = json!(true);
                let events = server.stream("/v1/chat/completions", &body);
                assert_eq!(text_of(&events), text, "{schema}");
            });
        }
    });
}

#[test]
fn objects_expressions_and_grammars_are_followed() {
    let server = Running::usual();
    let tokenizer = model().tokenizer().unwrap();
    // Without it the story goes on within the object for long.
    let bias: serde_json::Map<String, Value> = ["}", "\"", "]"]
        .into_iter()
        .map(|text| (tokenizer.tokenizer().id(text).unwrap().to_string(), json!(12)))
        .collect();
    let object = json!({
        "messages": [{"role": "user", "content": "Once"}], "max_tokens": 400, "temperature": 0, "logit_bias": bias,
        "response_format": {"type": "json_object"},
    });
    let (_, answer) = server.post("/v1/chat/completions", &object);
    let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(text).unwrap().is_object(), "{answer}");

    let asked = [
        ("regex", "(cat|dog)s? are [0-9]{3}"),
        ("grammar", "start: \"yes \" NUMBER | \"no\"\nNUMBER: /[1-9][0-9]?/"),
    ];
    let plausible = [r"^(cat|dog)s? are [0-9]{3}$", r"^(yes [1-9][0-9]?|no)$"];
    for ((field, form), plausible) in asked.into_iter().zip(plausible) {
        let body = json!({"prompt": "Once", "max_tokens": 40, "temperature": 1, "seed": 3, "n": 4, field: form});
        let (status, answer) = server.post("/v1/completions", &body);
        assert_eq!(status, 200, "{answer}");
        let schema = json!({"pattern": plausible});
        for choice in answer["choices"].as_array().unwrap() {
            assert!(obeys(&schema, &choice["text"]), "{choice}");
            assert_eq!(choice["finish_reason"], "stop");
        }
    }
}

#[test]
fn forms_that_cannot_be_followed_are_refused() {
    let server = Running::usual();
    let chat = "/v1/chat/completions";
    let nested = (0..200).fold(json!({"type": "null"}), |inner, _| json!({"items": inner}));
    for (changes, param) in [
        (body(&json!({"type": "frog"}), 0), "response_format"),
        (
            body(&json!({"$ref": "https://schemas.example/a.json"}), 0),
            "response_format",
        ),
        (body(&json!({"type": "string", "pattern": "("}), 0), "response_format"),
        (
            body(&json!({"type": "string", "pattern": "(?=a)b"}), 0),
            "response_format",
        ),
        (
            body(&json!({"type": "object", "propertyNames": {"pattern": "^a$"}}), 0),
            "response_format",
        ),
        (
            body(&json!({"type": "string", "minLength": 5, "maxLength": 2}), 0),
            "response_format",
        ),
        (body(&json!(7), 0), "response_format.json_schema.schema"),
        (json!({"response_format": {"type": "yaml"}}), "response_format.type"),
        (json!({"regex": "("}), "regex"),
        (json!({"grammar": "start: missing"}), "grammar"),
        (json!({"regex": "a", "grammar": "start: \"a\""}), "grammar"),
    ] {
        let mut asked = json!({"messages": [{"role": "user", "content": "A"}], "max_tokens": 4});
        for (key, value) in changes.as_object().unwrap() {
            asked[key] = value.clone();
        }
        let (status, answer) = server.post(chat, &asked);
        assert_eq!(
            (status, answer["error"]["param"].as_str()),
            (400, Some(param)),
            "{changes}: {answer}"
        );
    }
    // Nobody is hurt by a schema that nests deeper than JSON may.
    let (status, _) = server.post(chat, &body(&nested, 0));
    assert_eq!(status, 400);
    // One after another of the same is compiled once, and n answers share it.
    let plan = |text: &str| {
        let config = planish::GenerationConfig {
            constraint: Some(Constraint::Regex(text.to_owned())),
            ..crate::server::config(4)
        };
        model().plan(&config).unwrap().grammar.unwrap()
    };
    assert!(plan("a+") == plan("a+") && plan("a+") != plan("b+"));
}
