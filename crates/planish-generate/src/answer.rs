//! What comes of a session: steps on the way, and the answer with its times.

use std::time::Duration;

use crate::TokenLogprobs;

/// What happens while a session generates. The receiver may break off at any of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Step<'a> {
    /// So many tokens of the prompt are computed.
    Prefill {
        /// Tokens computed or found in the cache.
        done: usize,
        /// Tokens of the prompt.
        total: usize,
    },
    /// How likely the next token was, where that was asked for; [`Step::Token`] follows.
    Logprobs(&'a TokenLogprobs),
    /// The next token of the answer; the one that ends it is not reported.
    Token(u32),
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// The model chose an end token.
    EndToken,
    /// A stop string came.
    StopString,
    /// `max_new_tokens` are there.
    MaxNewTokens,
    /// The model's context is full.
    ContextFull,
    /// `max_time` is over.
    MaxTime,
    /// The receiver of the steps broke off.
    Interrupted,
}

/// An answer and how long it took.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The tokens, without the end token.
    pub tokens: Vec<u32>,
    /// How likely each of them was, where that was asked for.
    pub logprobs: Vec<TokenLogprobs>,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Of these, tokens whose keys and values were still in the cache.
    pub reused_tokens: usize,
    /// Time to the first token: for the prompt's other tokens, and for other sessions meanwhile.
    pub prefill: Duration,
    /// Time for the answer after its first token.
    pub decode: Duration,
}

impl Answer {
    /// Prompt tokens computed per second.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        (self.prompt_tokens - self.reused_tokens) as f64 / self.prefill.as_secs_f64().max(1e-9)
    }

    /// Tokens of the answer per second, the first left out: it comes with the prompt. 0 if there was no second.
    pub fn decode_tokens_per_s(&self) -> f64 {
        let later = self.tokens.len().saturating_sub(1);
        later as f64 / self.decode.as_secs_f64().max(1e-9)
    }
}
