//! tokenizer.json of the SentencePiece kind (BPE with tokens for bytes) as the scored vocabulary that llama.cpp merges by.
//!
//! There the pair is joined whose token has the best score. Ranked merges do the same if those of a token stand together and are
//! all ways to cut it into two tokens; others are refused.

use std::collections::HashMap;

use serde_json::Value;

use super::tokenizer::{BYTE, ORDINARY, UNKNOWN};
use crate::merges;

/// SentencePiece's visible space.
const SPACE: &str = "\u{2581}";

/// Whether a tokenizer is of this kind, and puts a space first; `None` if it treats text otherwise.
pub(super) fn space_first(tokenizer: &Value) -> Option<bool> {
    let model = &tokenizer["model"];
    if model["type"] != "BPE" || model["byte_fallback"] != true || model["ignore_merges"] == true {
        return None;
    }
    let replaces =
        |step: &Value| step["type"] == "Replace" && step["pattern"]["String"] == " " && step["content"] == SPACE;
    let normalizer = &tokenizer["normalizer"];
    let steps: Vec<&Value> = match normalizer["type"].as_str() {
        None => Vec::new(),
        Some("Sequence") => normalizer["normalizers"].as_array()?.iter().collect(),
        Some(_) => vec![normalizer],
    };
    let by_normalizer = match steps[..] {
        [] => None,
        [step] if replaces(step) => Some(false),
        [first, step] if first["type"] == "Prepend" && first["prepend"] == SPACE && replaces(step) => Some(true),
        _ => return None,
    };
    let pre = &tokenizer["pre_tokenizer"];
    match (by_normalizer, pre["type"].as_str()) {
        (Some(first), None) => Some(first),
        // No space is left to cut at.
        (Some(first), Some("Split")) if pre["pattern"]["String"] == " " => Some(first),
        (None, Some("Metaspace")) if pre["replacement"] == SPACE && pre["split"] == false => {
            match pre["prepend_scheme"].as_str()? {
                "always" | "first" => Some(true),
                "never" => Some(false),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Scores of tokens (text, kind), whose kinds for bytes and the unknown token are set.
///
/// # Errors
/// Merges that no scores stand for.
pub(super) fn scores(
    model: &Value,
    merged: &[(String, String)],
    tokens: &mut [(String, i32)],
) -> Result<Vec<f32>, String> {
    for (text, kind) in tokens.iter_mut() {
        let is_byte = text.len() == 6 && text.starts_with("<0x") && text.ends_with('>');
        if model["unk_token"].as_str() == Some(text) {
            *kind = UNKNOWN;
        } else if is_byte && *kind == ORDINARY {
            *kind = BYTE;
        }
    }
    let mut ranks: HashMap<String, usize> = HashMap::new();
    let mut told: Vec<(usize, &str, &str)> = Vec::with_capacity(merged.len());
    for (left, right) in merged {
        let next = ranks.len();
        let rank = *ranks.entry(format!("{left}{right}")).or_insert(next);
        told.push((rank, left, right));
    }
    let refuse =
        || "its merges are not those of a vocabulary with scores: GGUF has no other for SentencePiece".to_owned();
    if !told.is_sorted_by_key(|(rank, ..)| *rank) {
        return Err(refuse());
    }
    let lowest = -(ranks.len() as f32);
    let score_of = |(text, kind): &(String, i32)| match *kind {
        ORDINARY => ranks.get(text).map_or(lowest, |&rank| -(rank as f32)),
        _ => 0.0,
    };
    let scores: Vec<f32> = tokens.iter().map(score_of).collect();
    // What a reader makes of the scores.
    let known: HashMap<&str, i32> = tokens.iter().map(|(text, kind)| (text.as_str(), *kind)).collect();
    let scored = tokens.iter().zip(&scores).filter(|((_, kind), _)| *kind == ORDINARY);
    let scored = scored.map(|((text, _), score)| (text.as_str(), *score));
    let made = merges::merges_by_score(scored, |part| known.contains_key(part))?;
    let mut made: Vec<(usize, &str, &str)> = (made.into_iter())
        .map(|(left, right)| {
            (
                ranks.get(&format!("{left}{right}")).copied().unwrap_or(usize::MAX),
                left,
                right,
            )
        })
        .collect();
    made.sort_unstable();
    told.sort_unstable();
    match made == told {
        true => Ok(scores),
        false => Err(refuse()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn merges_without_scores_are_refused() {
        let mut tokens: Vec<(String, i32)> = (["<unk>", "<0x41>", "a", "b", "ab", "aba", "ba"].iter())
            .map(|text| ((*text).to_owned(), ORDINARY))
            .collect();
        let model = json!({ "unk_token": "<unk>" });
        let pairs = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs
                .iter()
                .map(|(left, right)| ((*left).to_owned(), (*right).to_owned()))
                .collect()
        };
        let all = pairs(&[("a", "b"), ("ab", "a"), ("a", "ba"), ("b", "a")]);
        let found = scores(&model, &all, &mut tokens).unwrap();
        assert_eq!(found, [0.0, 0.0, -3.0, -3.0, 0.0, -1.0, -2.0]);
        assert_eq!((tokens[0].1, tokens[1].1), (UNKNOWN, BYTE));
        for others in [&all[..3], &pairs(&[("ab", "a"), ("a", "b"), ("a", "ba"), ("b", "a")])] {
            let refused = scores(&model, others, &mut tokens).unwrap_err();
            assert!(refused.contains("with scores"), "{refused}");
        }
    }

    #[test]
    fn text_is_treated_as_sentencepiece_does() {
        let replace = json!({ "type": "Replace", "pattern": { "String": " " }, "content": SPACE });
        let prepend = json!({ "type": "Prepend", "prepend": SPACE });
        let metaspace = |scheme: &str, split: bool| json!({ "type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": split });
        let none = Value::Null;
        let split = json!({ "type": "Split", "pattern": { "String": " " }, "behavior": "MergedWithPrevious" });
        let llama = json!({ "type": "Sequence", "normalizers": [prepend, replace] });
        for (normalizer, pre_tokenizer, expected) in [
            (&llama, &none, Some(true)),
            (&replace, &split, Some(false)),
            (&none, &metaspace("first", false), Some(true)),
            (&none, &metaspace("never", false), Some(false)),
            (&none, &metaspace("first", true), None),
            (&json!({ "type": "NFKC" }), &none, None),
            (&none, &none, None),
        ] {
            let tokenizer = json!({
                "model": { "type": "BPE", "byte_fallback": true }, "normalizer": normalizer, "pre_tokenizer": pre_tokenizer,
            });
            assert_eq!(space_first(&tokenizer), expected, "{tokenizer}");
        }
        assert_eq!(
            space_first(&json!({ "model": { "type": "BPE" }, "normalizer": replace })),
            None
        );
    }
}
