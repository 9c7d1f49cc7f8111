//! What models of each family write when they call tools, and what is read of it, however it comes in pieces.

use planish_generate::{
    AnswerText, Call, Constraint, FAMILIES, Family, Files, PLAIN, Piece, Reader, Reading, Reasoning, Tokenizer, Tool,
    ToolChoice, constraint_of_calls,
};
use serde_json::{Value, json};

fn tools() -> Vec<Tool> {
    let weather = json!({"type": "object", "properties": {
        "city": {"type": "string"}, "days": {"type": "integer"}, "units": {"enum": ["C", "F"]}, "zip": {"type": "string"},
    }});
    let tool = |name: &str, parameters: &Value| Tool {
        name: name.to_owned(),
        description: None,
        parameters: parameters.clone(),
    };
    vec![
        tool("get_weather", &weather),
        tool("now", &json!({"type": "object", "properties": {}})),
    ]
}

/// Text, reasoning and calls of a text that comes in pieces of so many letters.
fn read(text: &str, reading: &Reading, size: usize) -> (String, String, Vec<Call>) {
    let mut reader = Reader::new(reading.clone());
    let letters: Vec<char> = text.chars().collect();
    let mut pieces: Vec<Piece> = Vec::new();
    for piece in letters.chunks(size) {
        pieces.extend(reader.push(&piece.iter().collect::<String>()));
    }
    pieces.extend(reader.finish());
    let (mut said, mut thought, mut calls) = (String::new(), String::new(), Vec::<Call>::new());
    for piece in pieces {
        match piece {
            Piece::Text(text) => said.push_str(&text),
            Piece::Reasoning(text) => thought.push_str(&text),
            Piece::Call(name) => calls.push(Call {
                name,
                arguments: String::new(),
            }),
            Piece::Arguments(text) => calls.last_mut().unwrap().arguments.push_str(&text),
        }
    }
    (said, thought, calls)
}

fn family(template: &str) -> &'static Family {
    Family::of_template(template).unwrap()
}

/// What a template of each family holds, what its models write, and what they say besides.
const TRANSCRIPTS: [(&str, &str, &str, &str); 16] = [
    (
        "hermes",
        "<tools></tools> <tool_call>\n{{..}}\n</tool_call>",
        "Let me look.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 3}}\n</tool_call>\n\
         <tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>",
        "Let me look.",
    ),
    (
        "hermes",
        "<tool_call> </tool_call>",
        "<tool_call>{\"arguments\": {\"city\": \"Paris\", \"days\": 3}, \"name\": \"get_weather\"}</tool_call><tool_call>{\"name\": \"now\"}</tool_call>",
        "",
    ),
    (
        "qwen-coder",
        "<tool_call> <function=..> <parameter=..> </parameter> </function> </tool_call>",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\nParis\n</parameter>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>\n\
         <tool_call>\n<function=now>\n</function>\n</tool_call>",
        "",
    ),
    (
        "glm",
        "<tool_call> <arg_key> <arg_value> </tool_call>",
        "Let me look.<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n<arg_key>days</arg_key>\n<arg_value>3</arg_value>\n\
         </tool_call>\n<tool_call>now\n</tool_call>",
        "Let me look.",
    ),
    (
        "glm",
        "<tool_call> <arg_key> <arg_value> </tool_call>",
        "<tool_call>get_weather<arg_key>city</arg_key><arg_value>Paris</arg_value><arg_key>days</arg_key><arg_value>3</arg_value></tool_call>\
         <tool_call>now</tool_call>",
        "",
    ),
    (
        "granite",
        "<|tool_call|>",
        "<|tool_call|>[{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 3}}, {\"name\": \"now\", \"arguments\": {}}]",
        "",
    ),
    (
        "mistral",
        "[TOOL_CALLS] [ARGS]",
        "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Paris\", \"days\": 3}[TOOL_CALLS]now[ARGS]{}",
        "",
    ),
    (
        "mistral",
        "[TOOL_CALLS] [CALL_ID] [ARGS]",
        "[TOOL_CALLS]get_weather[CALL_ID]abcdefghi[ARGS]{\"city\": \"Paris\", \"days\": 3}[TOOL_CALLS]now[CALL_ID]bcdefghij[ARGS]{}",
        "",
    ),
    (
        "mistral-list",
        "[TOOL_CALLS] [",
        "[TOOL_CALLS] [{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Paris\", \"days\": 3}}, {\"name\": \"now\", \"arguments\": {}}]",
        "",
    ),
    (
        "deepseek-v3",
        "<｜tool▁calls▁begin｜> <｜tool▁sep｜> ```json",
        "Let me look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{\"city\": \"Paris\", \"days\": 3}\n```\
         <｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "Let me look.",
    ),
    (
        "deepseek",
        "<｜tool▁calls▁begin｜> <｜tool▁sep｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{\"city\": \"Paris\", \"days\": 3}<｜tool▁call▁end｜>\
         <｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "",
    ),
    (
        "lfm2",
        "<|tool_list_start|> <|tool_call_start|>",
        "<|tool_call_start|>[get_weather(city='Paris', days=3), now()]<|tool_call_end|>Let me look.",
        "Let me look.",
    ),
    (
        "gemma",
        "<start_function_call> <escape>",
        "<start_function_call>call:get_weather{city:<escape>Paris<escape>,days:3}<end_function_call>\
         <start_function_call>call:now{}<end_function_call>",
        "",
    ),
    (
        "gemma-4",
        "<|tool_call> <tool_call|>",
        "<|tool_call>call:get_weather{city:<|\"|>Paris<|\"|>,days:3}<tool_call|><|tool_call>call:now{}<tool_call|>",
        "",
    ),
    (
        "llama-3",
        "\"parameters\" ipython",
        "{\"name\": \"get_weather\", \"parameters\": {\"city\": \"Paris\", \"days\": 3}}; {\"name\": \"now\", \"parameters\": {}}",
        "",
    ),
    (
        "llama-3",
        "\"parameters\" ipython",
        "<|python_tag|>{\"name\": \"get_weather\", \"parameters\": \"{\\\"city\\\": \\\"Paris\\\", \\\"days\\\": 3}\"}\n{\"name\": \"now\"}",
        "",
    ),
];

#[test]
fn calls_of_every_family_are_read() {
    for (name, template, text, said) in TRANSCRIPTS {
        let family = family(template);
        assert_eq!(family.name, name);
        let reading = Reading {
            calls: Some(family),
            tools: tools().into(),
            ..Reading::default()
        };
        for size in [1, 2, 3, 7, 1000] {
            let (found, _, calls) = read(text, &reading, size);
            assert_eq!(found, said, "{name} by {size}");
            let names: Vec<&str> = calls.iter().map(|call| call.name.as_str()).collect();
            assert_eq!(names, ["get_weather", "now"], "{name} by {size}");
            let arguments = calls
                .iter()
                .map(|call| serde_json::from_str::<Value>(&call.arguments).unwrap());
            let arguments: Vec<Value> = arguments.collect();
            assert_eq!(
                arguments,
                [json!({"city": "Paris", "days": 3}), json!({})],
                "{name} by {size}"
            );
        }
    }
}

#[test]
fn arguments_are_told_as_they_come() {
    for (template, text) in [
        (
            "<tool_call> </tool_call>",
            "<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Pa",
        ),
        ("[TOOL_CALLS] [ARGS]", "[TOOL_CALLS]get_weather[ARGS]{\"city\": \"Pa"),
        (
            "[TOOL_CALLS]",
            "[TOOL_CALLS][{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Pa",
        ),
    ] {
        let mut reader = Reader::new(Reading {
            calls: Some(family(template)),
            tools: tools().into(),
            ..Reading::default()
        });
        let pieces = text.chars().flat_map(|letter| reader.push(&letter.to_string()));
        let arguments = pieces.filter_map(|piece| match piece {
            Piece::Arguments(text) => Some(text),
            _ => None,
        });
        assert_eq!(arguments.collect::<String>(), "{\"city\": \"Pa", "{template}");
    }
}

#[test]
fn values_keep_the_types_of_their_schemas() {
    let reading = Reading {
        calls: Some(family("<tool_call> <function= <parameter=")),
        tools: tools().into(),
        ..Reading::default()
    };
    let text = "<tool_call>\n<function=get_weather>\n<parameter=zip>\n01234\n</parameter>\n<parameter=city>\nif a < b:\n  </p>\n\n</parameter>\n\
                <parameter=days>\n[1, 2]\n</parameter>\n</function>\n</tool_call>";
    let (_, _, calls) = read(text, &reading, 5);
    let arguments: Value = serde_json::from_str(&calls[0].arguments).unwrap();
    assert_eq!(
        arguments,
        json!({"zip": "01234", "city": "if a < b:\n  </p>\n", "days": [1, 2]})
    );
    let python = Reading {
        calls: Some(family("<|tool_call_start|>")),
        tools: tools().into(),
        ..Reading::default()
    };
    let text = r#"<|tool_call_start|>[f(a="x, \"y\")", b=[1, -2.5, None], c={"d": True, 'e': ""})]<|tool_call_end|>"#;
    let (_, _, calls) = read(text, &python, 4);
    let arguments: Value = serde_json::from_str(&calls[0].arguments).unwrap();
    assert_eq!(
        arguments,
        json!({"a": "x, \"y\")", "b": [1, -2.5, null], "c": {"d": true, "e": ""}})
    );
}

#[test]
fn what_is_no_call_is_text() {
    let with = |family: &'static Family| Reading {
        calls: Some(family),
        tools: tools().into(),
        ..Reading::default()
    };
    let hermes = with(family("<tool_call> </tool_call>"));
    let python = with(family("<|tool_call_start|>"));
    for (reading, text) in [
        (&hermes, "a < b and <tool_box> and <tool_cal"),
        (&hermes, "<tool_call>\nno object</tool_call>"),
        (&hermes, "<tool_call>"),
        (&python, "<|tool_call_start|>[f(]<|tool_call_end|>"),
        (&with(&PLAIN), "{\"name\": \"unknown\", \"arguments\": {}}"),
        (&with(&PLAIN), "{\"a\": 1} is JSON"),
        (&with(&PLAIN), "  text with { and }  \n"),
        (&Reading::default(), "  <tool_call>{\"name\": \"now\"}</tool_call>\n"),
    ] {
        for size in [1, 3, 100] {
            let (said, _, calls) = read(text, reading, size);
            assert_eq!((said.as_str(), calls.len()), (text, 0), "{size}");
        }
    }
}

#[test]
fn reasoning_is_told_apart() {
    let marks = |opened, may_open| Reading {
        reasoning: Some(Reasoning {
            open: "<think>".to_owned(),
            close: "</think>".to_owned(),
            opened,
            may_open,
            tokens: None,
            budget: None,
        }),
        calls: Some(family("<tool_call> </tool_call>")),
        tools: tools().into(),
    };
    let call = "<tool_call>\n{\"name\": \"now\", \"arguments\": {}}\n</tool_call>";
    for (text, reading, said, thought, called) in [
        (
            "<think>\nHm </thin.\n</think>\n\nYes.",
            marks(false, true),
            "Yes.",
            "\nHm </thin.\n",
            0,
        ),
        ("Hm.</think>Yes <think>.", marks(true, true), "Yes <think>.", "Hm.", 0),
        ("Yes.", marks(false, true), "Yes.", "", 0),
        ("<think>Yes.", marks(false, false), "<think>Yes.", "", 0),
        ("Hm", marks(true, false), "", "Hm", 0),
        (&format!("Hm</think>\n{call}"), marks(true, false), "", "Hm", 1),
    ] {
        for size in [1, 2, 100] {
            let (found, reasoning, calls) = read(text, &reading, size);
            assert_eq!(
                (found.as_str(), reasoning.as_str(), calls.len()),
                (said, thought, called),
                "{text} by {size}"
            );
        }
    }
}

/// The story model's tokenizer with the special tokens of gpt-oss.
fn channels() -> Tokenizer {
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/demo/tokenizer.json");
    let special = [
        "<|start|>",
        "<|channel|>",
        "<|message|>",
        "<|call|>",
        "<|return|>",
        "<|constrain|>",
    ];
    let config = json!({"additional_special_tokens": special});
    let files = Files {
        tokenizer: Some(std::fs::read(demo).unwrap()),
        tokenizer_config: Some(config.to_string().into_bytes()),
        ..Files::default()
    };
    Tokenizer::new(&files).unwrap()
}

#[test]
fn calls_in_channels_are_read() {
    let tokenizer = channels();
    let reading = Reading {
        calls: Some(family("<|channel|>commentary to=functions.")),
        tools: tools().into(),
        ..Reading::default()
    };
    let thought = "<|channel|>analysis<|message|>The weather, hm.<|end|><|start|>assistant";
    let arguments = r#"{"city": "Paris", "days": 3}"#;
    for (header, reading, expected) in [
        (
            "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>",
            &reading,
            true,
        ),
        (
            " to=functions.get_weather<|channel|>commentary json<|message|>",
            &reading,
            true,
        ),
        (
            "<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>",
            &Reading::default(),
            false,
        ),
    ] {
        let text = format!("{thought}{header}{arguments}<|call|>");
        let mut answer = AnswerText::new(&tokenizer, &[], reading).unwrap();
        let (mut thoughts, mut said, mut calls) = (String::new(), String::new(), Vec::<Call>::new());
        let mut reasoning = 0;
        let mut pieces = Vec::new();
        for token in tokenizer.encode_plain(&text).unwrap() {
            reasoning += usize::from(answer.is_in_reasoning());
            pieces.extend(answer.push(token).unwrap());
        }
        pieces.extend(answer.finish().unwrap());
        for piece in pieces {
            match piece {
                Piece::Text(text) => said.push_str(&text),
                Piece::Reasoning(text) => thoughts.push_str(&text),
                Piece::Call(name) => calls.push(Call {
                    name,
                    arguments: String::new(),
                }),
                Piece::Arguments(text) => calls.last_mut().unwrap().arguments.push_str(&text),
            }
        }
        assert_eq!(said, "", "{header}");
        assert!(reasoning > 0);
        match expected {
            true => {
                assert_eq!(thoughts, "The weather, hm.");
                let call = Call {
                    name: "get_weather".to_owned(),
                    arguments: arguments.to_owned(),
                };
                assert_eq!(calls, [call], "{header}");
            }
            // Who asked for no calls is not told of them as words.
            false => assert!(thoughts.starts_with("The weather, hm.") && calls.is_empty()),
        }
    }
}

#[test]
fn marks_become_their_tokens_in_grammars() {
    let tokenizer = channels();
    let constraint = |choice: &ToolChoice| {
        let family = family("<|channel|>commentary to=functions.");
        constraint_of_calls(&tokenizer, family, &tools(), (choice, true), None)
    };
    assert_eq!(constraint(&ToolChoice::None), None);
    assert_eq!(constraint(&ToolChoice::Auto), None, "its own channels are free");
    let Some(Constraint::Grammar(grammar)) = constraint(&ToolChoice::Required) else {
        panic!("a grammar")
    };
    let token = |text: &str| format!("<[{}]>", tokenizer.id(text).unwrap());
    let header = format!(
        "{} \"commentary to=functions.get_weather \" {} \"json\" {}",
        token("<|channel|>"),
        token("<|constrain|>"),
        token("<|message|>")
    );
    assert!(grammar.contains(&header), "{grammar}");
}

/// Words that texts of all families are made of, chosen by a counter.
fn odd_text(seed: u64) -> String {
    const WORDS: [&str; 24] = [
        "<tool_call>",
        "</tool_call>",
        "\n",
        "{\"name\": ",
        "\"get_weather\"",
        ", \"arguments\": ",
        "{\"city\": \"a\"}",
        "}",
        "<function=now>",
        "<parameter=city>",
        "</parameter>",
        "</function>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[",
        "]",
        "<|tool_call_start|>",
        "now(a=1)",
        "<|tool_call_end|>",
        " a < b ",
        "<arg_key>k</arg_key>",
        "<arg_value>v</arg_value>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
    ];
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut text = String::new();
    for _ in 0..12 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        text.push_str(WORDS[(state >> 40) as usize % WORDS.len()]);
    }
    text
}

#[test]
fn odd_texts_are_the_same_however_they_come() {
    for seed in 0..400 {
        let text = odd_text(seed);
        for family in FAMILIES.iter().chain([&PLAIN]) {
            let reading = Reading {
                calls: Some(family),
                tools: tools().into(),
                ..Reading::default()
            };
            let whole = read(&text, &reading, usize::MAX);
            for size in [1, 3, 8] {
                assert_eq!(
                    read(&text, &reading, size),
                    whole,
                    "{} by {size}: {text:?}",
                    family.name
                );
            }
        }
    }
}
