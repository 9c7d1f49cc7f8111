//! Tokenizers that are stored in other files than tokenizer.json, against the libraries that these files belong to
//! (tests/golden/formats, see scripts/golden/tokenizer_formats.py).

use std::path::PathBuf;

use planish_generate::{ChatTemplate, Files, Message, OtherTokenizer, TemplateInput, Tokenizer};
use serde_json::{Value, json};

fn golden() -> Value {
    serde_json::from_str(include_str!("golden/formats/golden.json")).unwrap()
}

fn folder(kind: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/formats")
        .join(kind)
}

fn files(kind: &str) -> Files {
    let mut files = Files::default();
    for entry in std::fs::read_dir(folder(kind)).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let bytes = std::fs::read(entry.path()).unwrap();
        match name.as_str() {
            "tokenizer_config.json" => files.tokenizer_config = Some(bytes),
            "config.json" => files.config = serde_json::from_slice(&bytes).unwrap(),
            _ => files.other_tokenizers.push(OtherTokenizer { name, bytes }),
        }
    }
    files
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap();
    list.iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

/// Ids and decoded text of every case; those of SentencePiece are without what stands around a text.
fn check(kind: &str, encode: impl Fn(&Tokenizer, &str) -> Vec<u32>) {
    let golden = &golden()[kind];
    let tokenizer = Tokenizer::new(&files(kind)).unwrap();
    assert_eq!(json!(tokenizer.vocabulary_size()), golden["vocabulary_size"], "{kind}");
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 80);
    let mut wrong = Vec::new();
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let (found, expected) = (encode(&tokenizer, text), ids(&case["ids"]));
        if found != expected {
            wrong.push(format!("{text:?}: {found:?}, expected {expected:?}"));
        }
        let decoded = tokenizer.decode(&expected).unwrap();
        if !case["decoded"].is_null() && decoded != case["decoded"] {
            wrong.push(format!("{expected:?}: {decoded:?}, expected {}", case["decoded"]));
        }
        let mut stream = tokenizer.detokenizer();
        let pieces: Vec<String> = expected.iter().map(|&id| stream.push(id).unwrap()).collect();
        assert_eq!(pieces.concat() + &stream.finish().unwrap(), decoded, "{kind} {text:?}");
    }
    assert!(
        wrong.is_empty(),
        "{kind}: {} of {}\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

#[test]
fn sentencepiece_files_are_read_as_sentencepiece_does() {
    for kind in ["bpe", "bpe_first", "gemma", "user_defined", "unigram", "rules"] {
        check(kind, |tokenizer, text| tokenizer.encode_plain(text).unwrap());
    }
}

#[test]
fn what_stands_around_a_text_is_what_the_files_say() {
    for (kind, has_end) in [("bpe", false), ("bpe_first", true), ("gemma", false)] {
        let golden = &golden()[kind];
        let tokenizer = Tokenizer::new(&files(kind)).unwrap();
        let mut expected = tokenizer.encode_plain("Hello").unwrap();
        expected.insert(0, golden["first"].as_u64().unwrap() as u32);
        if has_end {
            expected.push(golden["last"].as_u64().unwrap() as u32);
        }
        assert_eq!(tokenizer.encode("Hello").unwrap(), expected, "{kind}");
        assert_eq!(tokenizer.eos_id().map(u64::from), golden["last"].as_u64());
        let mut files = files(kind);
        files.tokenizer_config =
            Some(br#"{"tokenizer_class": "LlamaTokenizer", "add_bos_token": false, "eos_token": "a"}"#.to_vec());
        let tokenizer = Tokenizer::new(&files).unwrap();
        assert_eq!(tokenizer.encode("x").unwrap(), tokenizer.encode_plain("x").unwrap());
        assert_eq!(tokenizer.eos_id(), tokenizer.id("a"));
    }
}

#[test]
fn vocabularies_with_merges_are_read_as_transformers_does() {
    for kind in ["gpt2", "qwen2"] {
        check(kind, |tokenizer, text| tokenizer.encode(text).unwrap());
    }
    let tokenizer = Tokenizer::new(&files("qwen2")).unwrap();
    let end = tokenizer.id("<|im_end|>").unwrap();
    assert_eq!(tokenizer.eos_id(), Some(end));
    assert_eq!(tokenizer.special_text(end + 1), None, "<tool> is text");
}

#[test]
fn tiktoken_files_are_read_as_tiktoken_does() {
    for kind in ["qwen", "kimi", "llama3"] {
        check(kind, |tokenizer, text| tokenizer.encode(text).unwrap());
    }
}

#[test]
fn tekken_files_are_read_as_mistral_common_does() {
    for kind in ["tekken", "tekken_old"] {
        check(kind, |tokenizer, text| tokenizer.encode(text).unwrap());
        let tokenizer = Tokenizer::new(&files(kind)).unwrap();
        let first = tokenizer.encode_plain("[INST]a").unwrap()[0];
        assert_eq!(json!(first), golden()[kind]["inst"]);
        assert_eq!(tokenizer.id("<SPECIAL_19>").is_some(), kind == "tekken");
    }
}

#[test]
fn templates_see_special_tokens_that_only_the_tokenizer_names() {
    let mut files = files("tekken");
    files.chat_template = Some(b"{{ bos_token }}{{ messages[0].content }}{{ eos_token }}".to_vec());
    let tokenizer = Tokenizer::new(&files).unwrap();
    let template = ChatTemplate::new(&files).unwrap().unwrap();
    let template = template.with_special_tokens(tokenizer.special_tokens());
    let text = template
        .render(&[Message::new("user", "Hi")], &TemplateInput::default())
        .unwrap();
    assert_eq!(text, "<s>Hi</s>");
    let ids = tokenizer.encode_plain(&text).unwrap();
    assert_eq!((ids[0], ids.last().copied()), (1, tokenizer.eos_id()));
}

fn refusal(files: &Files) -> String {
    Tokenizer::new(files).unwrap_err().to_string()
}

fn edited(kind: &str, edit: impl Fn(&mut Vec<u8>)) -> Files {
    let mut files = files(kind);
    edit(&mut files.other_tokenizers[0].bytes);
    files
}

#[test]
fn kinds_that_are_not_read_are_named() {
    let with_class = |kind: &str, class: &str| {
        let mut files = files(kind);
        files.config.clear();
        files.tokenizer_config = Some(json!({ "tokenizer_class": class }).to_string().into_bytes());
        refusal(&files)
    };
    let cases = [
        (
            "llama3",
            "ChatGLM4Tokenizer",
            "tokenizer.model of the tokenizer_class \"ChatGLM4Tokenizer\"; those that are read: QWen",
        ),
        (
            "bpe",
            "XLNetTokenizer",
            "tokenizer.model of the tokenizer_class \"XLNetTokenizer\"; those that are read: Llama",
        ),
        (
            "gpt2",
            "RobertaTokenizer",
            "vocab.json of the tokenizer_class \"RobertaTokenizer\"; those that are read: GPT2",
        ),
    ];
    for (kind, class, expected) in cases {
        let error = with_class(kind, class);
        assert!(error.starts_with(expected), "{error}");
    }
    let mut alone = files("gpt2");
    alone.other_tokenizers.retain(|file| file.name == "vocab.json");
    assert!(refusal(&alone).starts_with("vocab.json alone; those that are read: tekken.json"));
    // Field 3 of message 2 is the type of the model; 3 is one of words. Field 24: spaces at the ends of words.
    let appended: [(&[u8], &str); 3] = [
        (&[0x12, 2, 0x18, 3], "tokenizer.model of model type 3"),
        (
            &[0x12, 3, 0xc0, 1, 1],
            "tokenizer.model with spaces at the ends of words",
        ),
        (&[0x1a, 2, 0x28, 0], "tokenizer.model with invisible spaces"),
    ];
    for (bytes, expected) in appended {
        let error = refusal(&edited("bpe", |file| file.extend_from_slice(bytes)));
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn broken_files_are_named() {
    let line = |text: &'static str| move |file: &mut Vec<u8>| file.extend_from_slice(text.as_bytes());
    let cases = [
        (
            edited("qwen", line("IQ==\n")),
            "qwen.tiktoken: line 401: expected base64 and a rank",
        ),
        (
            edited("qwen", line("I! 5000\n")),
            "qwen.tiktoken: line 401: expected base64 and a rank",
        ),
        (
            edited("qwen", line("enp6enp6 7\n")),
            "qwen.tiktoken: line 401: a token or a rank that came before",
        ),
        (
            edited("qwen", line("enp6enp6 4294967295\n")),
            "qwen.tiktoken: line 401: the rank 4294967295 is no token's",
        ),
        (
            edited("bpe", line("\n\u{7f}")),
            "tokenizer.model: as SentencePiece's: it ends within a field",
        ),
        (
            edited("bpe", line("\u{7}")),
            "tokenizer.model: as SentencePiece's: a field of wire type 7",
        ),
        (
            edited("bpe", |file| file.clear()),
            "tokenizer.model: as SentencePiece's: no pieces",
        ),
        (edited("tekken", |file| file.clear()), "tekken.json: "),
        (
            edited("tekken", |file| *file = b"{}".to_vec()),
            "tekken.json: config.pattern: expected a text",
        ),
    ];
    for (files, expected) in cases {
        let error = refusal(&files);
        assert!(error.starts_with(expected), "{error}");
    }
    // Sizes that would take hours or all memory.
    let long = format!("{} 5000\n", "YWFh".repeat(20_000));
    let long = edited("qwen", |file| file.extend_from_slice(long.as_bytes()));
    assert!(
        refusal(&long).starts_with("qwen.tiktoken: tokens so long"),
        "{}",
        refusal(&long)
    );
    let piece: Vec<u8> = [&[0x0a, 0xa4, 0x8d, 0x06, 0x0a, 0xa0, 0x8d, 0x06][..], &[b'a'; 100_000]].concat();
    let long = edited("bpe", |file| file.extend_from_slice(&piece));
    assert!(refusal(&long).contains("tokens so long"), "{}", refusal(&long));
    let many = edited("tekken", |file| {
        let text = String::from_utf8(std::mem::take(file)).unwrap();
        let text = text.replace(
            "\"default_num_special_tokens\": 20",
            "\"default_num_special_tokens\": 4000000000",
        );
        *file = text.into_bytes();
    });
    assert!(refusal(&many).contains("expected at most 65536"), "{}", refusal(&many));
    let mut unknown = files("gpt2");
    for file in &mut unknown.other_tokenizers {
        if file.name == "merges.txt" {
            file.bytes.extend_from_slice(b"zz qq\n");
        }
    }
    assert!(
        refusal(&unknown).contains("\"zz\" is not in vocab.json"),
        "{}",
        refusal(&unknown)
    );
    let mut contradicted = files("gpt2");
    contradicted.added_tokens = Some(br#"{"<|endoftext|>": 4000}"#.to_vec());
    assert!(
        refusal(&contradicted).contains("\"<|endoftext|>\" has the id 4000"),
        "{}",
        refusal(&contradicted)
    );
}

/// Whatever single byte is wrong, and wherever a file is cut: a tokenizer or an error. `PLANISH_ROUNDS` asks for more.
#[test]
fn damaged_files_are_results_or_errors() {
    let mut random = 1u64;
    let mut next = || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize
    };
    let rounds = std::env::var("PLANISH_ROUNDS").map_or(60, |rounds| rounds.parse().unwrap());
    for kind in ["bpe", "rules", "tekken_old", "qwen", "gpt2"] {
        for _ in 0..rounds {
            let mut files = files(kind);
            let which = next() % files.other_tokenizers.len();
            let bytes = &mut files.other_tokenizers[which].bytes;
            let at = next() % bytes.len();
            match next() % 3 {
                0 => bytes.truncate(at),
                _ => bytes[at] = next() as u8,
            }
            if let Ok(tokenizer) = Tokenizer::new(&files) {
                let _ = tokenizer.encode("The quick brown fox ﬁ\t1 你好");
            }
        }
    }
}
