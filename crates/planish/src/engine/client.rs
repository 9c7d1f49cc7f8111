//! Who waits for an answer of an engine.

use std::ops::ControlFlow;

use crate::{Error, TextAnswer, TokenLogprobs};

/// What an engine tells a client, in this order: `Begun` once, tokens and pieces of text, then `Finished` or `Failed` once, which may also be
/// all there is.
#[derive(Clone, Copy, Debug)]
pub enum EngineEvent<'a> {
    /// The prompt is being read.
    Begun {
        /// Tokens of the prompt.
        prompt_tokens: usize,
        /// Of these, tokens that are remembered.
        cached_tokens: usize,
    },
    /// How likely the next token of the answer was, where that was asked for; its text follows, or comes with that of later tokens.
    Logprobs(&'a TokenLogprobs),
    /// The next piece of the answer in whole characters, never a part of a stop string.
    Text(&'a str),
    /// The same, of what the model thinks before it answers, where that is told apart.
    Reasoning(&'a str),
    /// A call of this tool begins.
    Call(&'a str),
    /// More of the arguments of the call that began last.
    Arguments(&'a str),
    /// A token of the answer is taken. What it makes certain of the text was told before.
    Token(u32),
    /// The answer is finished: by itself, or [`Finish::Interrupted`](crate::Finish::Interrupted) because the engine stops.
    Finished(&'a TextAnswer),
    /// The answer cannot be given, or not to its end.
    Failed(&'a Error),
}

/// Who waits for an answer. Called from the engine's thread, where all answers wait for it: it must not block.
pub trait Client: Send {
    /// Takes an event. Breaking off ends the answer; nothing follows then.
    fn on_event(&mut self, event: EngineEvent<'_>) -> ControlFlow<()>;

    /// Whether nobody waits any more: asked before every pass.
    fn is_gone(&self) -> bool {
        false
    }
}
