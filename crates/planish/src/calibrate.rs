//! What goes into a model's layers while it runs, for `Method::Weighted`: it runs once over a text, by default one that it writes
//! itself, and all products are listened to, whatever the family.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planish_generate::Message;
use planish_model::{Device, Origin, Tap};
use planish_quantize::{InputSquares, Output};
use serde_json::Value;

use crate::convert::check_stop;
use crate::own_writing::{self, SIDE_BY_SIDE};
use crate::{AutoTokenizer, Error, Source};

/// The text that a model runs over.
#[derive(Clone, Debug, PartialEq)]
pub enum CalibrationText {
    /// What it writes itself at temperature 1 until it is `tokens` long: continuations of nothing, or of short questions where it was
    /// trained for conversations. The seeds of its texts count up from `seed`.
    OwnWriting {
        /// Of the first text.
        seed: u64,
        /// Tokens at least, prompts included.
        tokens: usize,
        /// Tokens of one text at most.
        longest: usize,
    },
    /// These pieces, and what a card says of them.
    Pieces {
        /// Tokens of each.
        pieces: Vec<Vec<u32>>,
        /// Where they come from.
        description: String,
    },
}

/// Tokens of a piece of a given text.
const PIECE: usize = 512;

impl CalibrationText {
    /// Tokens of one text of its own, at most, that layers are packed by.
    pub const LONGEST: usize = 512;

    /// Pieces of a text, `tokens` in all at most. A text of JSON lines, `{"messages": [{"role": .., "content": ..}, ..]}` each, goes
    /// through the model's chat template, a piece for each.
    ///
    /// # Errors
    /// A text that is too short for one piece, a line that is not such JSON, a model without a tokenizer or, for messages, a template.
    pub fn given(source: &Source, name: &str, text: &str, tokens: usize) -> Result<CalibrationText, Error> {
        let tokenizer = AutoTokenizer::from_source(source)?;
        let mut pieces = match text.trim_start().starts_with('{') {
            true => conversations(&tokenizer, text)?,
            false => tokenizer.chunks(text, PIECE)?,
        };
        let mut taken = 0;
        pieces.retain(|piece| {
            let fits = taken == 0 || taken + piece.len() <= tokens;
            taken += if fits { piece.len() } else { 0 };
            fits
        });
        Ok(CalibrationText::Pieces {
            description: format!("{taken} tokens of {name}, in {} pieces", pieces.len()),
            pieces,
        })
    }
}

impl CalibrationText {
    /// What it is, in words.
    pub(crate) fn description(&self) -> String {
        match self {
            CalibrationText::OwnWriting { seed, tokens, longest } => {
                format!("{tokens} tokens that it writes itself, in texts of up to {longest}, seeds from {seed} on")
            }
            CalibrationText::Pieces { description, .. } => description.clone(),
        }
    }
}

/// The first tokens of each conversation of JSON lines.
fn conversations(tokenizer: &AutoTokenizer, text: &str) -> Result<Vec<Vec<u32>>, Error> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let piece = |(index, line): (usize, &str)| {
        let wrong = || {
            Error::config(
                &format!("line {}", index + 1),
                line,
                "{\"messages\": [{\"role\": .., \"content\": ..}, ..]}",
            )
        };
        let value: Value = serde_json::from_str(line).map_err(|_| wrong())?;
        let messages = value["messages"].as_array().ok_or_else(wrong)?;
        let message = |fields: &Value| fields.as_object().cloned().map(Message::from_fields).ok_or_else(wrong);
        let messages = messages.iter().map(message).collect::<Result<Vec<_>, _>>()?;
        let mut tokens = tokenizer.apply_chat_template(&messages)?;
        tokens.truncate(PIECE);
        Ok(tokens)
    };
    lines.map(piece).collect()
}

impl Default for CalibrationText {
    fn default() -> CalibrationText {
        CalibrationText::OwnWriting {
            seed: 1,
            tokens: 16 * 512,
            longest: CalibrationText::LONGEST,
        }
    }
}

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CalibrationProgress {
    /// Tokens that went through the model.
    pub done: usize,
    /// Tokens there will be, about.
    pub total: usize,
}

/// The mean squares of the inputs of all layers of a plain model. It runs on the processor, in f32. `output.stop` ends it.
///
/// # Errors
/// A model that cannot be run; a piece that its context cannot hold.
pub fn calibrate(
    source: &Source,
    text: &CalibrationText,
    threads: Option<usize>,
    output: &Output,
    on_progress: &mut dyn FnMut(CalibrationProgress),
) -> Result<InputSquares, Error> {
    let mut on_progress = |progress| {
        on_progress(progress);
        check_stop(output)
    };
    let listener = Arc::new(Listener::default());
    let model = own_writing::model(source, (Device::Cpu, threads), Some(listener.clone()))?;
    let description = match text {
        CalibrationText::OwnWriting { seed, tokens, longest } => {
            let texts = own_writing::write(&model, (*seed, *tokens, *longest), SIDE_BY_SIDE, &mut on_progress)?;
            let texts = texts.len() as u64;
            format!(
                "{} texts of its own of up to {longest} tokens, seeds {seed} to {}",
                texts,
                seed + texts - 1
            )
        }
        CalibrationText::Pieces { pieces, description } => {
            let total = pieces.iter().map(Vec::len).sum();
            let mut done = 0;
            for piece in pieces {
                model.logits_from(piece, 0, &mut |_, _| {})?;
                done += piece.len();
                on_progress(CalibrationProgress { done, total })?;
            }
            description.clone()
        }
    };
    let squares = std::mem::take(&mut *lock(&listener.squares));
    Ok(squares.described(description))
}

/// Adds up the squares of inputs.
#[derive(Debug, Default)]
struct Listener {
    origins: Mutex<HashMap<usize, Origin>>,
    squares: Mutex<InputSquares>,
}

impl Tap for Listener {
    fn name(&self, weight: usize, origin: Origin) {
        lock(&self.origins).insert(weight, origin);
    }

    fn inputs(&self, weight: usize, values: &[f32], cols: usize) {
        if let Some(Origin { entry, part, parts }) = lock(&self.origins).get(&weight) {
            lock(&self.squares).add(entry, (*part, *parts), values, cols);
        }
    }
}

/// A panic elsewhere leaves nothing half done in these.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
