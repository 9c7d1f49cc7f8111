//! Tokens to text as they come: what is returned is final, never half a character, and adds up to the text of all tokens.
//!
//! A token alone has no text of its own: a character may span several, and the first word of a text may lose its space. So a
//! window of tokens is decoded, the context that is already shown and the news, and what goes beyond the shown text is new.

use crate::{Error, Tokenizer};

/// Stands for bytes that are no character (yet).
const REPLACEMENT: char = char::REPLACEMENT_CHARACTER;

/// A character has at most 4 bytes, and a token at least one: more tokens than these cannot be waiting for one character.
const LONGEST_WAIT_TOKENS: usize = 4;

/// Tokens of the text before that the first new ones are decoded with.
const CONTEXT_TOKENS: usize = 8;

/// One stream of tokens.
#[derive(Clone, Debug)]
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    window: Window,
}

/// The state of one stream of tokens, for whoever hands in the tokenizer each time.
#[derive(Clone, Debug, Default)]
pub struct Window {
    tokens: Vec<u32>,
    /// How many tokens at the window's start are shown in full.
    context: usize,
    /// The part of the window's text that is shown.
    shown: String,
}

impl<'a> Detokenizer<'a> {
    pub(crate) fn new(tokenizer: &'a Tokenizer) -> Detokenizer<'a> {
        Detokenizer {
            tokenizer,
            window: Window::default(),
        }
    }

    /// One that goes on with a text: a space before the first new word is part of what is new.
    pub(crate) fn after(tokenizer: &'a Tokenizer, context: &[u32]) -> Result<Detokenizer<'a>, Error> {
        let window = Window::after(tokenizer, context)?;
        Ok(Detokenizer { tokenizer, window })
    }

    /// Takes one token; returns the text that is now certain, often empty.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<String, Error> {
        self.window.push(self.tokenizer, token)
    }

    /// The end of the stream: the text of what was still waiting, broken characters shown as U+FFFD.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String, Error> {
        self.window.finish(self.tokenizer)
    }
}

impl Window {
    /// Goes on with the text of `context`.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn after(tokenizer: &Tokenizer, context: &[u32]) -> Result<Window, Error> {
        let tokens = context[context.len().saturating_sub(CONTEXT_TOKENS)..].to_vec();
        let shown = tokenizer.decode(&tokens)?;
        // A text that ends within a character is not taken up.
        if shown.ends_with(REPLACEMENT) {
            return Ok(Window::default());
        }
        Ok(Window {
            context: tokens.len(),
            tokens,
            shown,
        })
    }

    /// As [`Detokenizer::push`].
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, tokenizer: &Tokenizer, token: u32) -> Result<String, Error> {
        self.tokens.push(token);
        let text = tokenizer.decode(&self.tokens)?;
        let pending = self.tokens.len() - self.context;
        let certain = match text.strip_suffix(REPLACEMENT) {
            None => text.as_str(),
            Some(_) if pending <= LONGEST_WAIT_TOKENS => return Ok(String::new()),
            // Broken bytes, not an unfinished character; but the last ones may yet begin one.
            Some(_) => without_last_replacements(&text),
        };
        let complete = certain.len() == text.len();
        let news = match certain.strip_prefix(self.shown.as_str()) {
            Some(news) => news.to_owned(),
            // A decoder that shows a whole run of bytes as broken if its end is: what is shown stays, the rest follows.
            None if complete => tokenizer.decode(&self.tokens[self.context..])?,
            None => String::new(),
        };
        if news.is_empty() {
            return Ok(news);
        }
        if complete {
            self.tokens.drain(..self.context);
            self.context = self.tokens.len();
            self.shown = tokenizer.decode(&self.tokens)?;
        } else {
            self.shown = certain.to_owned();
        }
        Ok(news)
    }

    /// As [`Detokenizer::finish`].
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> Result<String, Error> {
        let text = tokenizer.decode(&self.tokens)?;
        let news = match text.strip_prefix(self.shown.as_str()) {
            Some(news) => news.to_owned(),
            None => tokenizer.decode(&self.tokens[self.context..])?,
        };
        *self = Window::default();
        Ok(news)
    }
}

/// `text` without its last replacement characters, at most three: as many bytes as an unfinished character can have.
fn without_last_replacements(text: &str) -> &str {
    let mut rest = text;
    for _ in 0..LONGEST_WAIT_TOKENS - 1 {
        rest = rest.strip_suffix(REPLACEMENT).unwrap_or(rest);
    }
    rest
}
