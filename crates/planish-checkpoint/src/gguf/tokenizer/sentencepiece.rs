//! SentencePiece BPE (`llama`): tokens with scores; unknown characters fall back to byte tokens `<0x0A>`.
//!
//! SentencePiece joins the pair whose token has the best score. Byte pair encoding by ranked merges does the same when every
//! way to cut a token into two tokens is a merge, ranked by the token's score.

use serde_json::{Value, json};

use super::super::fault::Fault;
use super::super::metadata::Metadata;
use super::Parts;
use super::byte_level::listed_merges;
use super::vocabulary::Vocabulary;

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

/// One way to make a token from two.
struct Merge<'a> {
    left: &'a str,
    right: &'a str,
    score: f32,
    /// Characters of `left`: of the merges of one token, those with the longer left part come first.
    left_length: usize,
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
    let mut merges = Vec::new();
    for (id, &token) in vocabulary.tokens.iter().enumerate() {
        if !vocabulary.is_merged(id) {
            continue;
        }
        for (left_length, (cut, _)) in token.char_indices().enumerate().skip(1) {
            let (left, right) = token.split_at(cut);
            if vocabulary.ids.contains_key(left) && vocabulary.ids.contains_key(right) {
                merges.push(Merge {
                    left,
                    right,
                    score: scores[id],
                    left_length,
                });
            }
        }
    }
    merges.sort_by(|one, other| {
        other
            .score
            .total_cmp(&one.score)
            .then(other.left_length.cmp(&one.left_length))
    });
    Ok(merges.into_iter().map(|merge| (merge.left, merge.right)).collect())
}
