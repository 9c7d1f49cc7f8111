//! What goes into a model's layers while it runs, for `Method::Weighted`: it runs once over a text, by default one that it writes
//! itself, and all products are listened to, whatever the family.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use planish_generate::{Answer, Finish, GenerationConfig, Message, Step};
use planish_model::{Device, LoadOptions, Origin, Tap};
use planish_quantize::InputSquares;
use serde_json::Value;

use crate::many::{ManyStep, Request};
use crate::{AutoModelForCausalLM, AutoTokenizer, CausalLM, Error, Source};

/// Texts that are written side by side.
const PARALLEL: usize = 16;

/// Openings for models that were trained for conversations; each is asked in turn, again and again.
const QUESTIONS: [&str; 16] = [
    "Write a short story about a lighthouse keeper.",
    "Explain how a bicycle stays upright.",
    "Write a Python function that finds all prime numbers below n.",
    "What were the causes of the First World War?",
    "Give me a recipe for vegetable soup.",
    "Summarize the plot of Romeo and Juliet.",
    "What is 17 times 24? Show your steps.",
    "Translate into French and German: the train leaves at nine.",
    "Write a polite letter that asks for a refund.",
    "List ten facts about the planet Jupiter.",
    "Explain recursion to a child.",
    "Write a SQL query that counts customers by country.",
    "How do vaccines work?",
    "Write a poem about rain in the city.",
    "Compare democracy and monarchy.",
    "Describe a day in the life of a farmer.",
];

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
            longest: 512,
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

/// The mean squares of the inputs of all layers of a plain model. It runs on the processor, in f32.
///
/// # Errors
/// A model that cannot be run; a piece that its context cannot hold.
pub fn calibrate(
    source: &Source,
    text: &CalibrationText,
    threads: Option<usize>,
    on_progress: &mut dyn FnMut(CalibrationProgress),
) -> Result<InputSquares, Error> {
    let listener = Arc::new(Listener::default());
    let options = LoadOptions {
        device: Device::Cpu,
        threads,
        exact: true,
        tap: Some(listener.clone()),
        ..LoadOptions::default()
    };
    let model = AutoModelForCausalLM::from_source(source).options(options).load()?;
    let description = match text {
        CalibrationText::OwnWriting { seed, tokens, longest } => {
            let texts = write(&model, (*seed, *tokens, *longest), on_progress)?.len() as u64;
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
                on_progress(CalibrationProgress { done, total });
            }
            description.clone()
        }
    };
    let squares = std::mem::take(&mut *lock(&listener.squares));
    Ok(squares.described(description))
}

/// Lets the model write. All texts: their openings and what it went on with, its end token behind a text that it ended.
pub(crate) fn write(
    model: &CausalLM,
    (first_seed, tokens, longest): (u64, usize, usize),
    on_progress: &mut dyn FnMut(CalibrationProgress),
) -> Result<Vec<Vec<u32>>, Error> {
    let openings = openings(model)?;
    let end = model.tokenizer()?.tokenizer().eos_id();
    let context = model.architecture().context;
    let (mut done, mut texts) = (0, Vec::new());
    while done < tokens {
        let first = texts.len() as u64;
        let request = |index: u64| own_request(&openings, context, longest, (first_seed, index));
        let requests: Vec<Request> = (first..first + PARALLEL as u64).map(request).collect();
        done += requests.iter().map(|request| request.prompt.len()).sum::<usize>();
        let answers = model.generate_many(&requests, PARALLEL, &mut |_, step| {
            if let ManyStep::Step(Step::Token(_)) = step {
                done += 1;
                on_progress(CalibrationProgress {
                    done,
                    total: tokens.max(done),
                });
            }
            ControlFlow::Continue(())
        })?;
        texts.extend(requests.into_iter().zip(answers).map(|(request, answer)| {
            let whole = |answer: Answer| {
                let end = end.filter(|_| answer.finish == Finish::EndToken);
                [request.prompt, answer.tokens, end.into_iter().collect()].concat()
            };
            answer.map(whole).unwrap_or_default()
        }));
    }
    Ok(texts)
}

/// Asks for the text of this index.
fn own_request(openings: &[Vec<u32>], context: usize, longest: usize, (first_seed, index): (u64, u64)) -> Request {
    let prompt = openings[(index % openings.len() as u64) as usize].clone();
    let room = longest.min(context).saturating_sub(prompt.len());
    Request {
        config: GenerationConfig {
            max_new_tokens: room.max(1),
            do_sample: Some(true),
            temperature: Some(1.0),
            top_k: Some(0),
            top_p: Some(1.0),
            min_p: Some(0.0),
            repetition_penalty: Some(1.0),
            seed: Some(first_seed + index),
            ..GenerationConfig::default()
        },
        prompt,
    }
}

/// Texts that the model writes itself, prompts included: so many tokens at least, the last text cut.
pub(crate) fn own_texts(
    model: &CausalLM,
    (first_seed, tokens, longest): (u64, usize, usize),
) -> Result<Vec<Vec<u32>>, Error> {
    let openings = openings(model)?;
    let context = model.architecture().context;
    let (mut texts, mut done, mut index) = (Vec::new(), 0, 0);
    while done < tokens {
        let count = (tokens - done).div_ceil(longest.max(1)).min(PARALLEL) as u64;
        let request = |index| own_request(&openings, context, longest, (first_seed, index));
        let requests: Vec<Request> = (index..index + count).map(request).collect();
        let answers = model.generate_many(&requests, PARALLEL, &mut |_, _| ControlFlow::Continue(()))?;
        index += count;
        for (request, answer) in requests.iter().zip(answers) {
            let mut text = request.prompt.clone();
            text.extend(answer.into_iter().flat_map(|answer| answer.tokens));
            text.truncate((tokens - done).max(2));
            done += text.len();
            texts.push(text);
            if done >= tokens {
                break;
            }
        }
    }
    Ok(texts)
}

/// What the model's texts begin with.
fn openings(model: &CausalLM) -> Result<Vec<Vec<u32>>, Error> {
    let tokenizer = model.tokenizer()?;
    if tokenizer.has_chat_template() {
        let asked = |question: &&str| tokenizer.apply_chat_template(&[Message::new("user", *question)]);
        return QUESTIONS.iter().map(asked).collect();
    }
    let nothing = tokenizer.encode("")?;
    if !nothing.is_empty() {
        return Ok(vec![nothing]);
    }
    // Where texts were separated while the model was trained, one begins.
    let separator = tokenizer.tokenizer().eos_id();
    Ok(vec![
        separator.map_or_else(|| tokenizer.encode("The"), |id| Ok(vec![id]))?,
    ])
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
