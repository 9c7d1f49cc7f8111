//! Forced calls in the markup of every family: whatever the model is, they can be read and obey their schemas.

use std::ops::ControlFlow;

use planish::{
    AutoModelForCausalLM, Constraint, Family, GenerationConfig, Reading, Reasoning, TextStep, Tool, ToolChoice,
};
use planish_generate::{FAMILIES, PLAIN, Shape, constraint_of_calls};
use serde_json::{Value, json};

/// A text that ends with a mark of several words would hardly end in a story.
fn tools(family: &Family) -> Vec<Tool> {
    let tool = |name: &str, parameters: Value| Tool {
        name: name.to_owned(),
        description: None,
        parameters,
    };
    let mut weather = json!({"type": "object", "properties": {
        "city": {"type": "string", "maxLength": 12}, "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "units": {"type": "string", "enum": ["C", "F"]}, "now": {"type": "boolean"},
    }, "required": ["days", "now"], "additionalProperties": false});
    if matches!(family.shape, Shape::Tags(_) | Shape::Braces(_)) {
        weather["properties"].as_object_mut().unwrap().shift_remove("city");
    }
    vec![
        tool("get_weather", weather),
        tool(
            "stop",
            json!({"type": "object", "properties": {}, "additionalProperties": false}),
        ),
    ]
}

fn obeys(arguments: &Value) -> bool {
    let known = ["city", "days", "units", "now"];
    let object = arguments.as_object().unwrap();
    object.keys().all(|key| known.contains(&key.as_str()))
        && (1..=14).contains(&arguments["days"].as_i64().unwrap())
        && arguments["now"].is_boolean()
        && (arguments["units"].is_null() || ["C", "F"].contains(&arguments["units"].as_str().unwrap()))
        && (arguments["city"].is_null() || arguments["city"].is_string())
}

#[test]
fn forced_calls_can_be_read_in_every_family() {
    let model = AutoModelForCausalLM::demo().exact(true).load().unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let prompt = tokenizer.encode("Once upon a time").unwrap();
    // Texts without a bound end some time when their ends are likely.
    let likely = ["<", "\"", "\n", "</"]
        .into_iter()
        .filter_map(|text| tokenizer.tokenizer().id(text));
    let likely: Vec<(u32, f32)> = likely.map(|token| (token, 6.0)).collect();
    let families = FAMILIES
        .iter()
        .chain([&PLAIN])
        .filter(|family| family.shape != Shape::Channels);
    for family in families {
        let named = |name: &str| ToolChoice::Named(name.to_owned());
        for (seed, choice) in [(1, named("get_weather")), (2, named("stop")), (3, ToolChoice::Required)] {
            let constraint = constraint_of_calls(tokenizer.tokenizer(), family, &tools(family), (&choice, false), None);
            assert!(constraint.is_some(), "{}", family.name);
            let config = GenerationConfig {
                max_new_tokens: 400,
                temperature: Some(1.0),
                seed: Some(seed),
                logit_bias: Some(likely.clone()),
                reading: Reading {
                    calls: Some(family),
                    tools: tools(family).into(),
                    ..Reading::default()
                },
                constraint,
                ..GenerationConfig::default()
            };
            let mut pieces = Vec::new();
            let answer = model.session().generate_text(&prompt, &config, &mut |step| {
                match step {
                    TextStep::Call(name) => pieces.push((name.to_owned(), String::new())),
                    TextStep::Arguments(text) => pieces.last_mut().unwrap().1.push_str(text),
                    _ => {}
                }
                ControlFlow::Continue(())
            });
            let answer = answer.unwrap_or_else(|error| panic!("{} {choice:?}: {error}", family.name));
            let [call] = answer.calls.as_slice() else {
                panic!("{} {choice:?}: {answer:?}", family.name)
            };
            let arguments: Value =
                serde_json::from_str(&call.arguments).unwrap_or_else(|_| panic!("{}: {call:?}", family.name));
            assert_eq!(
                (answer.text.as_str(), pieces.len()),
                ("", 1),
                "{}: {answer:?}",
                family.name
            );
            assert_eq!(
                pieces[0],
                (call.name.clone(), call.arguments.clone()),
                "told as it comes"
            );
            match (&choice, call.name.as_str()) {
                (ToolChoice::Named(asked), name) => assert_eq!(name, asked),
                (_, name) => assert!(["get_weather", "stop"].contains(&name)),
            }
            match call.name.as_str() {
                "stop" => assert_eq!(arguments, json!({})),
                _ => assert!(obeys(&arguments), "{}: {call:?}", family.name),
            }
        }
    }
}

#[test]
fn reasoning_has_a_budget_and_is_free_of_the_form() {
    let model = AutoModelForCausalLM::demo().exact(true).load().unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let prompt = tokenizer.encode("Once upon a time").unwrap();
    let marks = ["<|begin|>", "<|pad|>"].map(|text| tokenizer.tokenizer().id(text).unwrap());
    let answer = |opened: bool, may_open: bool, budget: Option<usize>, bias: Vec<(u32, f32)>| {
        let config = GenerationConfig {
            max_new_tokens: 60,
            temperature: Some(0.0),
            logit_bias: Some(bias),
            reading: Reading {
                reasoning: Some(Reasoning {
                    open: "<|begin|>".to_owned(),
                    close: "<|pad|>".to_owned(),
                    opened,
                    may_open,
                    tokens: Some((marks[0], marks[1])),
                    budget,
                }),
                ..Reading::default()
            },
            constraint: Some(Constraint::Regex("(yes|no)!".to_owned())),
            ..GenerationConfig::default()
        };
        let silent = &mut |_: TextStep<'_>| ControlFlow::Continue(());
        model.session().generate_text(&prompt, &config, silent).unwrap()
    };
    let forms = ["yes!", "no!"];
    let thought = answer(true, false, Some(5), Vec::new());
    assert!(forms.contains(&thought.text.as_str()), "{thought:?}");
    // Five tokens, and the mark after them.
    assert_eq!(thought.reasoning_tokens, 6, "{thought:?}");
    assert!(!thought.reasoning.is_empty() && !thought.reasoning.contains('<'));

    // It may think, and does not.
    let straight = answer(false, true, Some(5), Vec::new());
    assert!(
        forms.contains(&straight.text.as_str()) && straight.reasoning_tokens == 0,
        "{straight:?}"
    );
    // It thinks by itself, and stops by itself after the first word.
    let likely = vec![(marks[0], 50.0)];
    let own = answer(false, true, Some(3), likely.clone());
    assert!(
        forms.contains(&own.text.as_str()) && own.reasoning_tokens == 4,
        "{own:?}"
    );
    let never = answer(false, false, None, likely);
    assert!(
        forms.contains(&never.text.as_str()) && never.reasoning_tokens == 0,
        "{never:?}"
    );
}
