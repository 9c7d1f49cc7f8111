//! The tokenizer of a GGUF file as Hugging Face files: tokenizer.json, tokenizer_config.json, generation_config.json.
//!
//! Read: byte-level BPE (`gpt2`) and SentencePiece BPE (`llama`).

mod byte_level;
mod pre_tokenizers;
mod sentencepiece;
mod settings;
mod vocabulary;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

use self::vocabulary::{Model, Vocabulary};
use super::fault::Fault;
use super::metadata::Metadata;

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";

/// What llama.cpp calls the way in which a tokenizer.json cuts text, and bytes become letters; `None` if it has no name for that.
pub(super) fn pre_tokenizer_name(tokenizer: &Value) -> Option<&'static str> {
    let is_byte_level = tokenizer["model"]["type"] == "BPE" && tokenizer["model"]["byte_fallback"] != true;
    is_byte_level.then(|| pre_tokenizers::name_of(tokenizer)).flatten()
}

/// The files that [`file`] can rebuild: none if there is no tokenizer.
pub(super) fn files(metadata: &Metadata) -> Vec<String> {
    match metadata.get(vocabulary::MODEL) {
        Some(_) => [GENERATION_CONFIG, TOKENIZER, TOKENIZER_CONFIG]
            .map(String::from)
            .to_vec(),
        None => Vec::new(),
    }
}

/// The content of one file; `None` if it is none of [`files`].
pub(super) fn file(metadata: &Metadata, name: &str) -> Result<Option<Bytes>, Fault> {
    if !files(metadata).iter().any(|known| known == name) {
        return Ok(None);
    }
    let vocabulary = Vocabulary::read(metadata)?;
    let content = match name {
        TOKENIZER => to_json(&tokenizer_json(metadata, &vocabulary)?),
        TOKENIZER_CONFIG => to_json(&settings::tokenizer_config(metadata, &vocabulary)?),
        _ => to_json(&settings::generation_config(metadata, &vocabulary)?),
    };
    Ok(Some(content))
}

/// As people read it: indented, with a line end.
pub(super) fn to_json(value: &impl Serialize) -> Bytes {
    let mut text = serde_json::to_vec_pretty(value).expect("maps with string keys and finite numbers always serialize");
    text.push(b'\n');
    text.into()
}

/// tokenizer.json, as the tokenizers library reads it.
#[derive(Serialize)]
struct TokenizerJson<'a> {
    version: &'static str,
    truncation: Value,
    padding: Value,
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    decoder: Value,
    model: Bpe<'a>,
}

/// A token that is found in the text before anything else happens to it.
#[derive(Serialize)]
struct AddedToken<'a> {
    id: usize,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

/// Byte pair encoding.
#[derive(Serialize)]
struct Bpe<'a> {
    r#type: &'static str,
    dropout: Value,
    unk_token: Option<&'a str>,
    continuing_subword_prefix: Value,
    end_of_word_suffix: Value,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: &'a Vocabulary<'a>,
    merges: Vec<(&'a str, &'a str)>,
}

/// What the two kinds of tokenizers differ in.
struct Parts<'a> {
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    unk_token: Option<&'a str>,
    byte_fallback: bool,
    ignore_merges: bool,
    merges: Vec<(&'a str, &'a str)>,
}

fn tokenizer_json<'a>(metadata: &'a Metadata, vocabulary: &'a Vocabulary<'a>) -> Result<TokenizerJson<'a>, Fault> {
    let parts = match vocabulary.model {
        Model::ByteLevel => byte_level::parts(metadata, vocabulary)?,
        Model::SentencePiece => sentencepiece::parts(metadata, vocabulary)?,
    };
    Ok(TokenizerJson {
        version: "1.0",
        truncation: Value::Null,
        padding: Value::Null,
        added_tokens: added_tokens(vocabulary),
        normalizer: parts.normalizer,
        pre_tokenizer: parts.pre_tokenizer,
        post_processor: post_processor(vocabulary),
        decoder: parts.decoder,
        model: Bpe {
            r#type: "BPE",
            dropout: Value::Null,
            unk_token: parts.unk_token,
            continuing_subword_prefix: Value::Null,
            end_of_word_suffix: Value::Null,
            fuse_unk: parts.byte_fallback,
            byte_fallback: parts.byte_fallback,
            ignore_merges: parts.ignore_merges,
            vocab: vocabulary,
            merges: parts.merges,
        },
    })
}

fn added_tokens<'a>(vocabulary: &Vocabulary<'a>) -> Vec<AddedToken<'a>> {
    let added = vocabulary
        .tokens
        .iter()
        .enumerate()
        .filter(|(id, _)| vocabulary.is_added(*id));
    let token = |(id, &content): (usize, &&'a str)| AddedToken {
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: vocabulary.is_special(id),
    };
    added.map(token).collect()
}

/// Puts the begin and end tokens around a text, where the file says so.
fn post_processor(vocabulary: &Vocabulary) -> Value {
    let bos = vocabulary.bos.filter(|_| vocabulary.add_bos);
    let eos = vocabulary.eos.filter(|_| vocabulary.add_eos);
    if bos.is_none() && eos.is_none() {
        return Value::Null;
    }
    let special = |id: usize, part: usize| json!({ "SpecialToken": { "id": vocabulary.tokens[id], "type_id": part } });
    let around = |name: &str, part: usize| -> Vec<Value> {
        let sequence = json!({ "Sequence": { "id": name, "type_id": part } });
        let (before, after) = (bos.map(|id| special(id, part)), eos.map(|id| special(id, part)));
        before.into_iter().chain([sequence]).chain(after).collect()
    };
    let mut pair = around("A", 0);
    pair.extend(around("B", 1));
    let mut special_tokens = serde_json::Map::new();
    for id in bos.into_iter().chain(eos) {
        let token = vocabulary.tokens[id];
        special_tokens.insert(token.into(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    }
    json!({ "type": "TemplateProcessing", "single": around("A", 0), "pair": pair, "special_tokens": special_tokens })
}
