//! Tokenizers, templates, generation configs, and what a server would take.

use std::sync::OnceLock;

use planish_generate::{
    AnswerText, ChatTemplate, FAMILIES, Files, GenerationConfig, GenerationDefaults, Message, OtherTokenizer, PLAIN,
    Piece, Reader, Reading, Sampler, StopStrings, TemplateInput, Tokenizer, check_prompt,
};
use serde_json::Value;

use super::well;
use crate::folder::Folder;

const VOCABULARY: usize = 320;

/// A tokenizer, and what it makes of `text`.
pub fn tokenizer(input: &[u8]) {
    let folder = Folder::of(input);
    let files = Files {
        tokenizer: folder.get("tokenizer.json"),
        tokenizer_config: folder.get("tokenizer_config.json"),
        special_tokens_map: folder.get("special_tokens_map.json"),
        added_tokens: folder.get("added_tokens.json"),
        config: folder.json("config.json").as_object().cloned().unwrap_or_default(),
        other_tokenizers: others(&folder),
        ..Files::default()
    };
    ChatTemplate::new(&files).ok();
    let Some(tokenizer) = well(Tokenizer::new(&files)) else {
        return;
    };
    let text = folder.text("text");
    let tokens = tokenizer.encode(&text).unwrap_or_default();
    tokenizer.encode_plain(&text).ok();
    tokenizer.decode(&tokens).ok();
    tokenizer.decode_with_special_tokens(&tokens).ok();
    tell(&tokenizer, &tokens);
    read(&text);
}

/// The files that tokenizers are stored in besides tokenizer.json.
fn others(folder: &Folder) -> Vec<OtherTokenizer> {
    let ends = [".model", ".tiktoken", "vocab.json", "tekken.json", ".txt"];
    let names = folder.names().filter(|name| ends.iter().any(|end| name.ends_with(end)));
    let other = |name: &str| OtherTokenizer {
        name: name.to_owned(),
        bytes: folder.get(name).unwrap_or_default(),
    };
    names.map(other).collect()
}

/// The text of an answer, token by token, with some that the vocabulary lacks; calls in the markup of one of the families, or none.
fn tell(tokenizer: &Tokenizer, tokens: &[u32]) {
    let reading = Reading {
        calls: FAMILIES.get(tokens.len() % (FAMILIES.len() + 1)),
        ..Reading::default()
    };
    let Ok(mut pieces) = AnswerText::new(tokenizer, &tokens[..tokens.len() / 2], &reading) else {
        return;
    };
    for &token in tokens.iter().take(64).chain(&[0, 1, 2, u32::MAX]) {
        pieces.push(token).ok();
    }
    pieces.finish().ok();
}

/// A text as every family would have written it: nothing of it is lost unless it is a call, however it comes in pieces.
fn read(text: &str) {
    let half = text
        .char_indices()
        .nth(text.chars().count() / 2)
        .map_or(0, |(at, _)| at);
    for family in FAMILIES.iter().chain([&PLAIN]) {
        let reading = Reading {
            calls: Some(family),
            ..Reading::default()
        };
        let told = |parts: &[&str]| {
            let mut reader = Reader::new(reading.clone());
            let mut pieces: Vec<Piece> = parts.iter().flat_map(|part| reader.push(part)).collect();
            pieces.extend(reader.finish());
            let arguments = |piece: &Piece| match piece {
                Piece::Text(text) | Piece::Reasoning(text) | Piece::Arguments(text) => text.clone(),
                Piece::Call(name) => format!("call of {name}: "),
            };
            pieces.iter().map(arguments).collect::<String>()
        };
        assert_eq!(told(&[text]), told(&[&text[..half], &text[half..]]), "{}", family.name);
    }
}

/// A template, and what it makes of `request`.
pub fn template(input: &[u8]) {
    let folder = Folder::of(input);
    let files = Files {
        chat_template: folder.get("chat_template.jinja"),
        tokenizer_config: folder.get("tokenizer_config.json"),
        ..Files::default()
    };
    if let Some(Some(template)) = well(ChatTemplate::new(&files)) {
        render(&template, &folder.json("request")).ok();
    }
}

/// The prompt of a request as OpenAI's interface has it.
fn render(template: &ChatTemplate, request: &Value) -> Result<String, planish_generate::Error> {
    let list = |key: &str| request[key].as_array().cloned();
    let fields = |value: Value| match value {
        Value::Object(fields) => Message::from_fields(fields),
        other => Message::new("user", other.to_string()),
    };
    let messages: Vec<Message> = list("messages").unwrap_or_default().into_iter().map(fields).collect();
    let input = TemplateInput {
        add_generation_prompt: request["add_generation_prompt"].as_bool().unwrap_or(true),
        tools: list("tools"),
        documents: list("documents"),
        variables: request["chat_template_kwargs"].as_object().cloned().unwrap_or_default(),
    };
    template.render(&messages, &input)
}

/// A tokenizer and templates that are whole.
struct Known {
    tokenizer: Tokenizer,
    templates: Vec<ChatTemplate>,
}

fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let tokenizer =
            include_bytes!("../../../crates/planish-generate/tests/golden/tokenizers/byte_level/tokenizer.json");
        let files = Files {
            tokenizer: Some(tokenizer.to_vec()),
            ..Files::default()
        };
        let golden = include_str!("../../../crates/planish-generate/tests/golden/templates.json");
        let golden: Value = serde_json::from_str(golden).expect("a golden file is JSON");
        let sources = golden["templates"].as_object().expect("a golden file has templates");
        let special = [("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")];
        let special: Vec<_> = special.map(|(role, text)| (role.to_owned(), text.to_owned())).into();
        let compile = |source: &Value| {
            let source = source.as_str().expect("a template is a text");
            ChatTemplate::compile(vec![("default".to_owned(), source.to_owned())], special.clone())
        };
        Known {
            tokenizer: Tokenizer::new(&files).expect("a golden tokenizer is read"),
            templates: sources
                .values()
                .map(|source| compile(source).expect("a golden template compiles"))
                .collect(),
        }
    })
}

/// `generation_config.json` and `config.json`, under what a caller asks for in `asked`.
pub fn generation(input: &[u8]) {
    let folder = Folder::of(input);
    let asked = folder.json("asked");
    let files = Files {
        generation_config: folder.get("generation_config.json"),
        config: folder.json("config.json").as_object().cloned().unwrap_or_default(),
        ..Files::default()
    };
    let Known { tokenizer, templates } = known();
    let template = asked["template"]
        .as_u64()
        .and_then(|index| templates.get(index as usize));
    let tokenizer = asked["tokenizer"].as_bool().unwrap_or(false).then_some(tokenizer);
    if let Some(defaults) = well(GenerationDefaults::read(&files, tokenizer, template)) {
        defaults.max_new_tokens(7);
        choose(&asked, &defaults, &[1, 2, 3, 1, 2]);
    }
}

/// The choices of an answer of a few tokens, as far as they do not depend on a model.
fn choose(asked: &Value, defaults: &GenerationDefaults, prompt: &[u32]) {
    let Some(plan) = well(config(asked).resolve(defaults)) else {
        return;
    };
    let mut sampler = Sampler::of(&plan, prompt, VOCABULARY);
    let mut tokens = prompt.to_vec();
    for token in [1, 2, 3, 299] {
        let choice = sampler.next_choice(&tokens);
        sampler.adjustments();
        if let Some(mask) = sampler.mask() {
            assert_eq!(mask.len(), VOCABULARY.div_ceil(32));
        }
        if sampler.reads_logits(&tokens) {
            let mut logits: Vec<f32> = (0..VOCABULARY).map(|index| (index * 37 % 101) as f32 - 50.0).collect();
            let chosen = sampler.choose(&tokens, &choice, &mut logits);
            let allowed = |token: u32, mask: &[u32]| mask[token as usize / 32] >> (token % 32) & 1 == 1;
            assert!(chosen.is_none_or(|token| sampler.mask().is_none_or(|mask| allowed(token, mask))));
        }
        tokens.push(token);
        sampler.observe(&[token]);
    }
}

fn config(asked: &Value) -> GenerationConfig {
    let float = |key: &str| asked[key].as_f64().map(|number| number as f32);
    let count = |key: &str| asked[key].as_u64().map(|number| number as usize);
    let tokens = |value: &Value| -> Option<Vec<u32>> {
        let list = value.as_array()?;
        Some(
            list.iter()
                .filter_map(Value::as_u64)
                .map(|token| token as u32)
                .collect(),
        )
    };
    GenerationConfig {
        max_new_tokens: count("max_new_tokens").unwrap_or(4),
        do_sample: asked["do_sample"].as_bool(),
        temperature: float("temperature"),
        top_k: count("top_k"),
        top_p: float("top_p"),
        min_p: float("min_p"),
        repetition_penalty: float("repetition_penalty"),
        seed: Some(asked["seed"].as_u64().unwrap_or(1)),
        eos_token_id: tokens(&asked["eos_token_id"]),
        stop_strings: stops(asked),
        min_new_tokens: count("min_new_tokens"),
        no_repeat_ngram_size: count("no_repeat_ngram_size"),
        suppress_tokens: tokens(&asked["suppress_tokens"]),
        begin_suppress_tokens: tokens(&asked["begin_suppress_tokens"]),
        bad_words_ids: asked["bad_words_ids"]
            .as_array()
            .map(|words| words.iter().filter_map(tokens).collect()),
        sequence_bias: asked["sequence_bias"].as_array().map(|biases| {
            let bias = |pair: &Value| Some((tokens(&pair[0])?, pair[1].as_f64()? as f32));
            biases.iter().filter_map(bias).collect()
        }),
        encoder_repetition_penalty: float("encoder_repetition_penalty"),
        encoder_no_repeat_ngram_size: count("encoder_no_repeat_ngram_size"),
        forced_bos_token_id: count("forced_bos_token_id").map(|token| token as u32),
        forced_eos_token_id: tokens(&asked["forced_eos_token_id"]),
        top_h: float("top_h"),
        typical_p: float("typical_p"),
        epsilon_cutoff: float("epsilon_cutoff"),
        eta_cutoff: float("eta_cutoff"),
        exponential_decay_length_penalty: Some(&asked["exponential_decay_length_penalty"])
            .and_then(|pair| Some((pair[0].as_u64()? as usize, pair[1].as_f64()? as f32))),
        max_time: asked["max_time"].as_f64(),
        presence_penalty: float("presence_penalty"),
        frequency_penalty: float("frequency_penalty"),
        ..GenerationConfig::default()
    }
}

fn stops(asked: &Value) -> Option<Vec<String>> {
    let list = asked["stop"].as_array()?;
    Some(list.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// A request: messages through a template that is known, its tokens, its options, and an answer that is its own prompt.
pub fn requests(input: &[u8]) {
    let Some(request) = well(serde_json::from_slice::<Value>(input)) else {
        return;
    };
    let Known { tokenizer, templates } = known();
    let index = request["template"].as_u64().unwrap_or(0) as usize % templates.len();
    let Some(text) = well(render(&templates[index], &request)) else {
        return;
    };
    let Ok(tokens) = tokenizer.encode_plain(&text) else {
        return;
    };
    if check_prompt(&tokens, VOCABULARY, 4096).is_ok() {
        let defaults = GenerationDefaults::read(&Files::default(), None, None).expect("no file is no error");
        choose(&request, &defaults, &tokens);
    }
    tell(tokenizer, &tokens);
    let mut stop = StopStrings::new(&stops(&request).unwrap_or_default());
    let mut shown = String::new();
    for piece in text.split_inclusive(' ') {
        shown.push_str(&stop.push(piece));
    }
    shown.push_str(&stop.finish());
    assert!(text.starts_with(&shown));
}
