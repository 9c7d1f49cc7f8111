//! How likely tokens were, as OpenAI's two ways to complete have it.

use planish::{AutoTokenizer, TokenLogprobs};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;

/// Alternatives of a token, at most.
pub(crate) const MOST: u64 = 20;
/// In place of what no JSON can say.
const LEAST: f32 = -9999.0;

/// Takes `logprobs` and `top_logprobs` of a chat.
pub(super) fn of_chat(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    let asked = fields.flag("logprobs")?.unwrap_or(false);
    match fields.count("top_logprobs", 0..=MOST)? {
        Some(1..) if !asked => Err(ApiError::field("top_logprobs", "top_logprobs needs logprobs")),
        likeliest => Ok(asked.then_some(likeliest.unwrap_or(0))),
    }
}

/// Takes `logprobs` of a completion.
pub(super) fn of_completion(fields: &mut Fields) -> Result<Option<usize>, ApiError> {
    fields.count("logprobs", 0..=MOST)
}

fn text(tokenizer: &AutoTokenizer, token: u32) -> (String, Vec<u8>) {
    let bytes = tokenizer.tokenizer().token_bytes(token).unwrap_or_default();
    (String::from_utf8_lossy(&bytes).into_owned(), bytes)
}

/// Of a chat's choice.
pub(super) fn content(tokenizer: &AutoTokenizer, tokens: &[TokenLogprobs]) -> Value {
    json!({"content": entries(tokenizer, tokens), "refusal": null})
}

/// One for each token.
pub(crate) fn entries(tokenizer: &AutoTokenizer, tokens: &[TokenLogprobs]) -> Vec<Value> {
    let entry = |token: u32, logprob: f32| {
        let (text, bytes) = text(tokenizer, token);
        json!({"token": text, "logprob": logprob.max(LEAST), "bytes": bytes})
    };
    let entries = tokens.iter().map(|token| {
        let likeliest = token.likeliest.iter().map(|&(token, logprob)| entry(token, logprob));
        let mut of_token = entry(token.token, token.logprob);
        of_token["top_logprobs"] = likeliest.collect();
        of_token
    });
    entries.collect()
}

/// Of a completion's choice, whose text before these tokens has so many characters. Moves on by theirs.
pub(super) fn lists(tokenizer: &AutoTokenizer, tokens: &[TokenLogprobs], offset: &mut usize) -> Value {
    let (mut texts, mut logprobs, mut likeliest, mut offsets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for token in tokens {
        let (of_token, _) = text(tokenizer, token.token);
        offsets.push(*offset);
        *offset += of_token.chars().count();
        texts.push(of_token);
        logprobs.push(token.logprob.max(LEAST));
        let entries = token.likeliest.iter();
        let entries = entries.map(|&(token, logprob)| (text(tokenizer, token).0, json!(logprob.max(LEAST))));
        likeliest.push(entries.collect::<Map<String, Value>>());
    }
    json!({"tokens": texts, "token_logprobs": logprobs, "top_logprobs": likeliest, "text_offset": offsets})
}
