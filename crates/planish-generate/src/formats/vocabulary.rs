//! `vocab.json` and `merges.txt`: byte-level byte pair encoding as GPT-2 stores it.

use std::collections::{BTreeMap, HashMap};

use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use super::{Draft, Model, Settings, byte_level};
use crate::Error;
use crate::files::OtherTokenizer;

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const END: &str = "<|endoftext|>";

/// Families whose models have no other class of tokenizer.
const GPT2_MODELS: [&str; 8] = [
    "gpt2",
    "gpt_neo",
    "gptj",
    "gpt_bigcode",
    "opt",
    "starcoder2",
    "phi",
    "codegen",
];
const QWEN_MODELS: [&str; 6] = ["qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next", "qwen3_5"];

/// Whether the tokenizer is Qwen 2's; else it is GPT-2's.
fn is_qwen(file: &OtherTokenizer, settings: &Settings) -> Result<bool, Error> {
    let model = settings.model_type.as_deref().unwrap_or_default();
    match settings.class() {
        Some("Qwen2Tokenizer") => Ok(true),
        Some("GPT2Tokenizer" | "CodeGenTokenizer") => Ok(false),
        _ if settings.has_no_own_class() && QWEN_MODELS.contains(&model) => Ok(true),
        _ if settings.has_no_own_class() && GPT2_MODELS.contains(&model) => Ok(false),
        _ => Err(settings.unsupported(&file.name, "GPT2Tokenizer, CodeGenTokenizer, Qwen2Tokenizer")),
    }
}

pub(super) fn read(vocabulary: &OtherTokenizer, merges: &OtherTokenizer, settings: &Settings) -> Result<Draft, Error> {
    let is_qwen = is_qwen(vocabulary, settings)?;
    let tokens: HashMap<String, u32> =
        serde_json::from_slice(&vocabulary.bytes).map_err(|error| Error::bad_file(&vocabulary.name, error))?;
    let space_first = settings.flag("add_prefix_space")?.unwrap_or(false);
    let merges = ranked_merges(merges, &tokens, &vocabulary.name)?;
    let pre_tokenizers = match is_qwen {
        true if space_first => {
            return Err(super::unsupported(&vocabulary.name, "with add_prefix_space".into()));
        }
        true => byte_level::cut_by(&vocabulary.name, QWEN2)?,
        false => vec![ByteLevel::new(space_first, true, true).into()],
    };
    let end = |role| (role, END.to_owned());
    let roles = match is_qwen {
        true => vec![end("eos_token"), end("pad_token")],
        false => vec![end("bos_token"), end("eos_token"), end("unk_token")],
    };
    Ok(Draft {
        file: vocabulary.name.clone(),
        normalizers: if is_qwen { vec![NFC.into()] } else { Vec::new() },
        pre_tokenizers,
        decoder: byte_level::decoder(),
        added: BTreeMap::new(),
        roles: roles
            .into_iter()
            .filter(|(_, text)| {
                tokens.contains_key(text) || settings.names.values().any(|token| token.content == *text)
            })
            .collect(),
        adds: [false, false],
        space_first: false,
        model: Model::Bpe {
            vocabulary: tokens,
            merges,
            unknown: None,
            whole_first: false,
        },
    })
}

/// Two tokens on each line, after a line that tells the version.
fn ranked_merges(
    file: &OtherTokenizer,
    tokens: &HashMap<String, u32>,
    vocabulary: &str,
) -> Result<Vec<(String, String)>, Error> {
    let text = std::str::from_utf8(&file.bytes).map_err(|error| Error::bad_file(&file.name, error))?;
    let mut merges = Vec::new();
    for (number, line) in text.lines().enumerate() {
        if line.is_empty() || line.starts_with("#version") {
            continue;
        }
        let bad = |what: String| Error::bad_file(&file.name, format!("line {}: {what}", number + 1));
        let (left, right) = line
            .split_once(' ')
            .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
            .ok_or_else(|| bad(format!("expected two tokens, found {line:.80?}")))?;
        for token in [left, right, &format!("{left}{right}")] {
            if !tokens.contains_key(token) {
                return Err(bad(format!("{token:?} is not in {vocabulary}")));
            }
        }
        merges.push((left.to_owned(), right.to_owned()));
    }
    Ok(merges)
}
