//! SentencePiece BPE (`llama`): tokens with scores; unknown characters fall back to byte tokens `<0x0A>`.

use serde_json::{Value, json};

use super::super::fault::Fault;
use super::super::metadata::Metadata;
use super::Parts;
use super::byte_level::listed_merges;
use super::vocabulary::Vocabulary;
use crate::merges;

/// SentencePiece's visible space.
const SPACE: &str = "\u{2581}";

pub(super) fn parts<'a>(metadata: &'a Metadata, vocabulary: &Vocabulary<'a>) -> Result<Parts<'a>, Fault> {
    let merges = match listed_merges(metadata, vocabulary)? {
        Some(merges) => merges,
        None => merges_by_score(metadata, vocabulary)?,
    };
    let space_first = metadata.flag("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    Ok(Parts {
        normalizer: normalizer(space_first),
        pre_tokenizer: Value::Null,
        decoder: decoder(space_first),
        unk_token: vocabulary.text(vocabulary.unknown),
        byte_fallback: true,
        ignore_merges: false,
        merges,
    })
}

fn normalizer(space_first: bool) -> Value {
    let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
    if space_first {
        json!({ "type": "Sequence", "normalizers": [{ "type": "Prepend", "prepend": SPACE }, replace] })
    } else {
        replace
    }
}

fn decoder(space_first: bool) -> Value {
    let mut steps = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if space_first {
        steps.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    json!({ "type": "Sequence", "decoders": steps })
}

fn merges_by_score<'a>(metadata: &'a Metadata, vocabulary: &Vocabulary<'a>) -> Result<Vec<(&'a str, &'a str)>, Fault> {
    let key = "tokenizer.ggml.scores";
    let scores = metadata.need(key, metadata.floats(key)?)?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(Fault::key(
            key,
            &format!("{} values, one for each token", vocabulary.tokens.len()),
            scores.len(),
        ));
    }
    let scored = vocabulary.tokens.iter().zip(scores).enumerate();
    let merged = scored.filter(|(id, _)| vocabulary.is_merged(*id));
    let merged = merged.map(|(_, (&token, score))| (token, score));
    let merges = merges::merges_by_score(merged, |part| vocabulary.ids.contains_key(part));
    merges.map_err(|what| Fault::malformed(format!("tokenizer.ggml.tokens: {what}")))
}
