//! Metadata of a tokenizer, from the files of Hugging Face: byte-level ones whose way of cutting text is one that llama.cpp has a name
//! for, and those of the SentencePiece kind.

use serde_json::{Value, json};

use super::super::tokenizer::pre_tokenizer_name;
use super::keys::Pairs;
use super::sentencepiece;
use crate::{Checkpoint, Error};

/// Kinds of tokens.
pub(super) const ORDINARY: i32 = 1;
pub(super) const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;
pub(super) const BYTE: i32 = 6;

/// A checkpoint without a tokenizer is written without one.
pub(super) fn add(checkpoint: &Checkpoint, pairs: &mut Pairs) -> Result<(), Error> {
    let Some(tokenizer) = json_file(checkpoint, "tokenizer.json")? else {
        return Ok(());
    };
    let settings = json_file(checkpoint, "tokenizer_config.json")?.unwrap_or_else(|| json!({}));
    let file = checkpoint.path().join("tokenizer.json");
    add_tokens(checkpoint, &tokenizer, &settings, pairs).map_err(|what| Error::unsupported(&file, what))?;
    let template = match checkpoint.file("chat_template.jinja")? {
        Some(text) => String::from_utf8(text.to_vec()).ok(),
        None => settings["chat_template"].as_str().map(str::to_owned),
    };
    if let Some(template) = template {
        pairs.text("tokenizer.chat_template", &template);
    }
    Ok(())
}

fn json_file(checkpoint: &Checkpoint, name: &str) -> Result<Option<Value>, Error> {
    let Some(data) = checkpoint.file(name)? else {
        return Ok(None);
    };
    let parsed = serde_json::from_slice(&data);
    parsed
        .map(Some)
        .map_err(|error| Error::malformed(&checkpoint.path().join(name), error.to_string()))
}

fn add_tokens(checkpoint: &Checkpoint, tokenizer: &Value, settings: &Value, pairs: &mut Pairs) -> Result<(), String> {
    let model = &tokenizer["model"];
    let space_first = sentencepiece::space_first(tokenizer);
    let pre = match space_first {
        Some(_) => "default",
        None => pre_tokenizer_name(tokenizer).ok_or(
            "its way of cutting text has no name in llama.cpp: byte-level tokenizers of GPT-2, SmolLM, Llama 3, Qwen2, Tekken and GPT-4o, and SentencePiece's, are written",
        )?,
    };
    let size = checkpoint
        .config()
        .get("vocab_size")
        .and_then(Value::as_u64)
        .unwrap_or(0) as usize;
    let mut tokens: Vec<Option<(String, i32)>> = Vec::new();
    let mut put = |id: Option<u64>, text: &str, kind: i32| {
        let id = id.and_then(|id| usize::try_from(id).ok()).filter(|&id| id < size);
        let id = id.ok_or_else(|| format!("the id of `{text}` is not below the vocab_size {size}"))?;
        if tokens.len() <= id {
            tokens.resize(id + 1, None);
        }
        tokens[id] = Some((text.to_owned(), kind));
        Ok::<_, String>(())
    };
    for (text, id) in model["vocab"].as_object().into_iter().flatten() {
        put(id.as_u64(), text, ORDINARY)?;
    }
    for token in tokenizer["added_tokens"].as_array().into_iter().flatten() {
        let special = token["special"].as_bool() == Some(true);
        let text = token["content"].as_str();
        let text = text.ok_or_else(|| format!("an added token without a text: {token}"))?;
        put(token["id"].as_u64(), text, if special { CONTROL } else { USER_DEFINED })?;
    }
    tokens.resize(size, None);
    let mut tokens: Vec<(String, i32)> = tokens
        .into_iter()
        .enumerate()
        .map(|(id, token)| token.unwrap_or_else(|| (format!("[PAD{id}]"), UNUSED)))
        .collect();
    let merges = model["merges"].as_array().into_iter().flatten().map(|merge| {
        let pair = match merge {
            Value::String(pair) => pair.split_once(' '),
            Value::Array(pair) if pair.len() == 2 => pair[0].as_str().zip(pair[1].as_str()),
            _ => None,
        };
        let pair = pair.map(|(left, right)| (left.to_owned(), right.to_owned()));
        pair.ok_or_else(|| format!("expected a pair of texts as a merge, found {merge}"))
    });
    let merges = merges.collect::<Result<Vec<(String, String)>, String>>()?;
    let scores = match space_first {
        Some(_) => Some(sentencepiece::scores(model, &merges, &mut tokens)?),
        None => None,
    };
    let id_of = |text: &str| tokens.iter().position(|(token, _)| token == text);
    pairs.text("tokenizer.ggml.model", if scores.is_some() { "llama" } else { "gpt2" });
    pairs.text("tokenizer.ggml.pre", pre);
    let (texts, kinds): (Vec<String>, Vec<i32>) = tokens.iter().cloned().unzip();
    pairs.texts("tokenizer.ggml.tokens", &texts);
    pairs.integers("tokenizer.ggml.token_type", &kinds);
    match scores {
        Some(scores) => {
            pairs.floats("tokenizer.ggml.scores", &scores);
            pairs.flag("tokenizer.ggml.add_space_prefix", space_first == Some(true));
        }
        None => {
            let merges: Vec<String> = merges.iter().map(|(left, right)| format!("{left} {right}")).collect();
            pairs.texts("tokenizer.ggml.merges", &merges);
        }
    }
    let mut bos = None;
    for (name, key) in [("bos", "bos"), ("eos", "eos"), ("unknown", "unk"), ("padding", "pad")] {
        let told = &settings[format!("{key}_token")];
        let told = told.as_str().or_else(|| told["content"].as_str()).and_then(id_of);
        let configured = checkpoint.config().get(&format!("{key}_token_id"));
        let configured = configured.and_then(|id| id.as_u64().or_else(|| id.get(0)?.as_u64()));
        let id = told.or(configured
            .and_then(|id| usize::try_from(id).ok())
            .filter(|&id| id < size));
        if let Some(id) = id {
            pairs.u32(&format!("tokenizer.ggml.{name}_token_id"), id as u32);
            bos = if key == "bos" { Some(id) } else { bos };
        }
    }
    let begins = first_token(&tokenizer["post_processor"]).and_then(id_of);
    pairs.flag("tokenizer.ggml.add_bos_token", bos.is_some() && begins == bos);
    Ok(())
}

/// The token that a template puts before a text.
fn first_token(processor: &Value) -> Option<&str> {
    match processor["type"].as_str()? {
        "Sequence" => processor["processors"].as_array()?.iter().find_map(first_token),
        "TemplateProcessing" => processor["single"].get(0)?["SpecialToken"]["id"].as_str(),
        _ => None,
    }
}
