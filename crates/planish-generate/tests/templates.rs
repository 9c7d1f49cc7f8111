//! Chat templates against transformers' apply_chat_template (tests/golden/templates.json).

use planish_generate::{ChatTemplate, Error, Message, TemplateInput};
use serde_json::{Map, Value};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/templates.json")).unwrap()
}

fn special(golden: &Value) -> Vec<(String, String)> {
    let tokens = golden["special_tokens"].as_object().unwrap();
    tokens
        .iter()
        .map(|(role, text)| (role.clone(), text.as_str().unwrap().to_owned()))
        .collect()
}

fn template(source: &str, golden: &Value) -> Result<ChatTemplate, Error> {
    ChatTemplate::compile(vec![("default".to_owned(), source.to_owned())], special(golden))
}

fn messages(value: &Value) -> Vec<Message> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|fields| Message::from_fields(fields.as_object().unwrap().clone()))
        .collect()
}

fn input(arguments: &Map<String, Value>) -> TemplateInput {
    let mut variables = arguments.clone();
    let mut list = |key: &str| variables.remove(key).map(|list| list.as_array().unwrap().clone());
    let (tools, documents) = (list("tools"), list("documents"));
    let add_generation_prompt = variables.remove("add_generation_prompt").unwrap().as_bool().unwrap();
    TemplateInput {
        add_generation_prompt,
        tools,
        documents,
        variables,
    }
}

/// What differs, or nothing.
fn difference(case: &Value, result: Result<String, Error>) -> Option<String> {
    let expected = |key: &str| case.get(key).and_then(Value::as_str);
    match (result, expected("expected"), expected("refusal")) {
        (Ok(text), Some(expected), _) if text == expected => None,
        (Err(Error::Template(words)), _, Some(refusal)) if words == refusal => None,
        (Err(_), None, None) => None,
        (result, ..) => {
            let mut case = case.clone();
            if let Some(case) = case.as_object_mut() {
                case.retain(|key, _| ["source", "template", "expected", "refusal", "fails"].contains(&key.as_str()));
            }
            Some(format!("{case:#}\n   found {result:?}"))
        }
    }
}

#[test]
fn conversations_read_as_in_transformers() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 39);
    let render = |case: &Value| {
        let source = golden["templates"][case["template"].as_str().unwrap()]
            .as_str()
            .unwrap();
        template(source, &golden)?.render(
            &messages(&case["messages"]),
            &input(case["arguments"].as_object().unwrap()),
        )
    };
    let different: Vec<String> = cases.iter().filter_map(|case| difference(case, render(case))).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn expressions_mean_the_same_as_in_jinja() {
    let golden = golden();
    let cases = golden["expressions"].as_array().unwrap();
    assert!(cases.len() >= 57);
    let mut variables = Map::new();
    variables.insert("value".into(), golden["value"].clone());
    let input = TemplateInput {
        variables,
        ..TemplateInput::default()
    };
    let render = |case: &Value| {
        template(case["source"].as_str().unwrap(), &golden)?.render(&[Message::new("user", "x")], &input)
    };
    let different: Vec<String> = cases.iter().filter_map(|case| difference(case, render(case))).collect();
    assert!(different.is_empty(), "{}", different.join("\n"));
}

#[test]
fn a_template_that_does_not_compile_is_named_with_its_line() {
    let error = template("fine\n{% if %}", &golden()).unwrap_err().to_string();
    assert!(error.starts_with("chat template: "), "{error}");
    assert!(error.contains("line 2") || error.contains(":2"), "{error}");
}

/// The families that the golden file names, and whether a rendered conversation of each has a system and a tool message.
#[test]
fn ten_families_read_system_and_tool_messages() {
    let golden = golden();
    let cases = golden["cases"].as_array().unwrap();
    let has = |template: &Value, role: &str| {
        let rendered = cases
            .iter()
            .filter(|case| case["template"] == *template && case["expected"].is_string());
        let mut messages = rendered.flat_map(|case| case["messages"].as_array().unwrap());
        messages.any(|message| message["role"] == role)
    };
    let families = golden["families"].as_object().unwrap();
    let both = families
        .values()
        .filter(|template| has(template, "system") && has(template, "tool"));
    assert!(both.count() >= 10 && families.len() >= 15);
}
