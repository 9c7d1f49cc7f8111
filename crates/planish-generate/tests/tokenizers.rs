//! Ids, texts and streams against transformers' AutoTokenizer (tests/golden/tokenizers).

use planish_generate::{
    ChatTemplate, Error, Files, GenerationConfig, GenerationDefaults, Message, TemplateInput, Tokenizer,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const KINDS: [&str; 2] = ["byte_level", "metaspace"];

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/tokenizers/golden.json")).unwrap()
}

fn files(kind: &str) -> Files {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/tokenizers")
        .join(kind);
    let read = |name: &str| Some(std::fs::read(folder.join(name)).unwrap());
    Files {
        tokenizer: read("tokenizer.json"),
        tokenizer_config: read("tokenizer_config.json"),
        ..Files::default()
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

#[test]
fn ids_and_texts_are_those_of_transformers() {
    for kind in KINDS {
        let golden = &golden()[kind];
        let tokenizer = Tokenizer::new(&files(kind)).unwrap();
        assert_eq!(
            tokenizer.vocabulary_size() as u64,
            golden["vocabulary_size"].as_u64().unwrap()
        );
        assert_eq!(tokenizer.eos_id().map(u64::from), golden["eos_id"].as_u64());
        for case in golden["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let expected = ids(&case["ids"]);
            assert_eq!(tokenizer.encode(text).unwrap(), expected, "{kind} {text:?}");
            assert_eq!(
                tokenizer.encode_plain(text).unwrap(),
                ids(&case["plain_ids"]),
                "{kind} {text:?}"
            );
            assert_eq!(tokenizer.decode(&expected).unwrap(), case["decoded"].as_str().unwrap());
            let with_special = tokenizer.decode_with_special_tokens(&expected).unwrap();
            assert_eq!(with_special, case["decoded_with_special_tokens"].as_str().unwrap());
        }
    }
}

#[test]
fn chats_become_the_same_ids() {
    for kind in KINDS {
        let golden = &golden()[kind];
        let files = files(kind);
        let tokenizer = Tokenizer::new(&files).unwrap();
        let template = ChatTemplate::new(&files).unwrap().unwrap();
        let messages: Vec<Message> = golden["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|fields| Message::from_fields(fields.as_object().unwrap().clone()))
            .collect();
        for (key, tools) in [("chat_ids", None), ("tool_chat_ids", Some(vec![json!({"a": 1})]))] {
            let input = TemplateInput {
                add_generation_prompt: true,
                tools,
                ..TemplateInput::default()
            };
            let text = template.render(&messages, &input).unwrap();
            assert_eq!(
                tokenizer.encode_plain(&text).unwrap(),
                ids(&golden[key]),
                "{kind} {key}"
            );
        }
    }
}

/// The pieces of a stream, each checked to be whole.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut detokenizer = tokenizer.detokenizer();
    let mut pieces: Vec<String> = ids.iter().map(|&id| detokenizer.push(id).unwrap()).collect();
    pieces.push(detokenizer.finish().unwrap());
    pieces
}

#[test]
fn a_stream_adds_up_to_the_text_and_never_shows_half_a_character() {
    for kind in KINDS {
        let tokenizer = Tokenizer::new(&files(kind)).unwrap();
        for case in golden()[kind]["cases"].as_array().unwrap() {
            let ids = tokenizer.encode(case["text"].as_str().unwrap()).unwrap();
            let pieces = stream(&tokenizer, &ids);
            assert_eq!(pieces.concat(), tokenizer.decode(&ids).unwrap(), "{kind}");
            assert!(
                pieces.iter().all(|piece| !piece.contains('\u{fffd}')),
                "{kind} {pieces:?}"
            );
        }
    }
}

#[test]
fn text_appears_as_soon_as_it_is_certain() {
    let tokenizer = Tokenizer::new(&files("byte_level")).unwrap();
    let ids = tokenizer.encode("ab😀c").unwrap();
    let pieces = stream(&tokenizer, &ids);
    assert_eq!(pieces.last().unwrap(), "");
    assert_eq!(pieces[0], "a");
    assert!(pieces.iter().any(|piece| piece == "😀"), "{pieces:?}");
}

#[test]
fn broken_bytes_do_not_hold_the_stream_back() {
    for (kind, byte) in [("byte_level", "ð"), ("metaspace", "<0xF0>")] {
        let tokenizer = Tokenizer::new(&files(kind)).unwrap();
        let broken = tokenizer.id(byte).unwrap();
        let mut detokenizer = tokenizer.detokenizer();
        let shown: String = (0..20).map(|_| detokenizer.push(broken).unwrap()).collect();
        assert!(shown.chars().count() >= 12, "{kind}: {shown:?}");
        let letter = tokenizer.id("a").unwrap();
        assert!(detokenizer.push(letter).unwrap().ends_with('a'));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Of any tokens whatever, byte-level text streams exactly; with byte fallback where the bytes are characters.
    #[test]
    fn any_tokens_stream_to_their_text(ids in prop::collection::vec(0u32..406, 0..40)) {
        let tokenizer = Tokenizer::new(&files("byte_level")).unwrap();
        prop_assert_eq!(stream(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap());
    }

    #[test]
    fn any_text_streams_to_itself(text in "\\PC{0,20}") {
        let tokenizer = Tokenizer::new(&files("metaspace")).unwrap();
        // A broken character in the text looks like a broken end of it.
        let ids = tokenizer.encode(&text.replace('\u{fffd}', "")).unwrap();
        prop_assert_eq!(stream(&tokenizer, &ids).concat(), tokenizer.decode(&ids).unwrap());
    }
}

#[test]
fn files_that_are_missing_or_broken_are_named() {
    let missing = Tokenizer::new(&Files::default()).unwrap_err();
    assert_eq!(
        missing.to_string(),
        "the checkpoint has no tokenizer.json, which turns text into tokens"
    );
    let broken = Files {
        tokenizer: Some(b"{".to_vec()),
        ..Files::default()
    };
    assert!(
        Tokenizer::new(&broken)
            .unwrap_err()
            .to_string()
            .starts_with("tokenizer.json: ")
    );
    let broken = Files {
        tokenizer_config: Some(b"[]".to_vec()),
        ..files("metaspace")
    };
    assert!(
        Tokenizer::new(&broken)
            .unwrap_err()
            .to_string()
            .starts_with("tokenizer_config.json: ")
    );
    let odd = Files {
        tokenizer_config: Some(br#"{"chat_template": [{"name": "x"}]}"#.to_vec()),
        ..files("metaspace")
    };
    let error = ChatTemplate::new(&odd).unwrap_err().to_string();
    assert!(
        error.starts_with("tokenizer_config.json: chat_template: expected a name and a template"),
        "{error}"
    );
    assert!(ChatTemplate::new(&Files::default()).unwrap().is_none());
}

#[test]
fn end_tokens_are_all_that_the_files_name() {
    let tokenizer = Tokenizer::new(&files("metaspace")).unwrap();
    let eos = |generation: Option<&str>, config: Value| {
        let files = Files {
            generation_config: generation.map(|text| text.as_bytes().to_vec()),
            config: config.as_object().unwrap().clone(),
            ..Files::default()
        };
        let defaults = GenerationDefaults::read(&files, Some(&tokenizer), None)?;
        Ok::<_, Error>(GenerationConfig::default().resolve(&defaults)?.eos_token_id)
    };
    assert_eq!(
        eos(Some(r#"{"eos_token_id": [5, 6]}"#), json!({"eos_token_id": 7})).unwrap(),
        [5, 6, 7, 2]
    );
    assert_eq!(eos(Some("{}"), json!({"eos_token_id": 7})).unwrap(), [7, 2]);
    assert_eq!(
        eos(Some(r#"{"eos_token_id": -1}"#), json!({"eos_token_id": 2})).unwrap(),
        [2]
    );
    assert_eq!(eos(None, json!({"eos_token_id": null})).unwrap(), [2]);
    let error = eos(Some(r#"{"eos_token_id": "x"}"#), json!({}))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        r#"generation_config.json: eos_token_id is "x", expected token ids"#
    );
}

#[test]
fn the_checkpoint_suggests_and_the_caller_decides() {
    let suggestion =
        br#"{"do_sample": true, "temperature": 0.6, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.1}"#;
    let files = Files {
        generation_config: Some(suggestion.to_vec()),
        ..Files::default()
    };
    let defaults = GenerationDefaults::read(&files, None, None).unwrap();
    let plan = |config: GenerationConfig| config.resolve(&defaults).unwrap().sampling;
    let suggested = plan(GenerationConfig::default());
    assert!(suggested.do_sample);
    assert_eq!(
        (suggested.temperature, suggested.top_k, suggested.top_p),
        (0.6, 20, 0.95)
    );
    assert_eq!((suggested.min_p, suggested.repetition_penalty), (0.0, 1.1));
    let own = plan(GenerationConfig {
        temperature: Some(1.5),
        top_k: Some(0),
        ..GenerationConfig::default()
    });
    assert_eq!(
        (own.do_sample, own.temperature, own.top_k, own.top_p),
        (true, 1.5, 0, 0.95)
    );
    assert!(
        !plan(GenerationConfig {
            temperature: Some(0.0),
            ..GenerationConfig::default()
        })
        .do_sample
    );
    let bare = GenerationConfig::default()
        .resolve(&GenerationDefaults::default())
        .unwrap()
        .sampling;
    assert_eq!((bare.do_sample, bare.temperature, bare.top_k), (false, 1.0, 50));
}

/// What the tokenizer library panics on, while it reads a file or later, and what it would not end with.
#[test]
fn files_that_the_library_panics_on_are_named() {
    type Edit = fn(&mut Value);
    let hostile: [(&str, Edit); 8] = [
        ("replace an empty pattern", |file| {
            file["normalizer"] = json!({"type": "Replace", "pattern": {"String": ""}, "content": "abc"});
        }),
        ("an empty trie", |file| {
            file["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAAAA"});
        }),
        ("a trie that points beyond itself", |file| {
            file["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "BAAAAP////8="});
        }),
        ("a trie longer than the file", |file| {
            file["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": "/////w=="});
        }),
        ("a template of a token that is not there", |file| {
            let single = json!([{"SpecialToken": {"id": "q", "type_id": 0}}]);
            file["post_processor"] =
                json!({"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}});
        }),
        ("a prefix longer than tokens", |file| {
            file["model"]["continuing_subword_prefix"] = json!("##########");
        }),
        ("letters that become billions", |file| {
            let ten = json!({"type": "Replace", "pattern": {"Regex": "."}, "content": "a".repeat(10)});
            file["normalizer"] = json!({"type": "Sequence", "normalizers": vec![ten; 9]});
        }),
        ("pieces of no length", |file| {
            file["pre_tokenizer"] = json!({"type": "FixedLength", "length": 0});
        }),
    ];
    for (what, edit) in hostile {
        let mut files = files("byte_level");
        let mut tokenizer: Value = serde_json::from_slice(files.tokenizer.as_deref().unwrap()).unwrap();
        edit(&mut tokenizer);
        files.tokenizer = Some(tokenizer.to_string().into_bytes());
        let error = Tokenizer::new(&files).and_then(|tokenizer| tokenizer.encode("Once upon a time"));
        let error = error.map(|_| ()).expect_err(what).to_string();
        assert!(error.starts_with("tokenizer.json: "), "{what}: {error}");
    }
    assert!(!planish_generate::in_foreign_code());
}

#[test]
fn many_special_tokens_take_no_more_than_their_number() {
    let mut files = files("byte_level");
    let mut config: Value = serde_json::from_slice(files.tokenizer_config.as_deref().unwrap()).unwrap();
    let many: Vec<String> = (0..200_000).map(|index| format!("<y{index}>")).collect();
    config["extra_special_tokens"] = json!(many);
    files.tokenizer_config = Some(config.to_string().into_bytes());
    let start = std::time::Instant::now();
    let tokenizer = Tokenizer::new(&files).unwrap();
    assert_eq!(tokenizer.encode_plain("<y199999>").unwrap().len(), 1);
    assert!(start.elapsed().as_secs() < 10, "{:?}", start.elapsed());
}
