//! What a plain model writes itself, to be packed or judged by: continuations of nothing, or of short questions where it was trained
//! for conversations. Its weights stay in the mapped file, so that memory does not grow with the model.

use std::ops::ControlFlow;
use std::sync::Arc;

use planish_generate::{Answer, Finish, GenerationConfig, Message, Step};
use planish_model::{Device, LoadOptions, Tap};

use crate::many::{ManyStep, Request};
use crate::{AutoModelForCausalLM, CalibrationProgress, CausalLM, Error, Source};

/// Texts that are written side by side at most.
pub const SIDE_BY_SIDE: usize = 16;

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

/// A text of its own.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OwnText {
    /// The prompt and what it went on with.
    pub tokens: Vec<u32>,
    /// The token by which it ended the text, if it did.
    pub end: Option<u32>,
}

impl OwnText {
    /// With its end.
    pub fn whole(mut self) -> Vec<u32> {
        self.tokens.extend(self.end);
        self.tokens
    }
}

/// The model on a device, in f32; on the processor its weights stay in place, and `tap` is told of the inputs of its products.
pub fn model(
    source: &Source,
    (device, threads): (Device, Option<usize>),
    tap: Option<Arc<dyn Tap>>,
) -> Result<CausalLM, Error> {
    let options = LoadOptions {
        device,
        threads,
        exact: true,
        in_place: true,
        tap,
        ..LoadOptions::default()
    };
    AutoModelForCausalLM::from_source(source).options(options).load()
}

/// Lets the model write at temperature 1 until it is `tokens` long in all, prompts included: texts of `longest` tokens at most, whose
/// seeds count up from the first. `at_once` texts are written side by side at least, though fewer may be needed. An error of
/// `on_progress` ends it.
pub fn write(
    model: &CausalLM,
    (first_seed, tokens, longest): (u64, usize, usize),
    at_once: usize,
    on_progress: &mut dyn FnMut(CalibrationProgress) -> Result<(), Error>,
) -> Result<Vec<OwnText>, Error> {
    let openings = openings(model)?;
    let end = model.tokenizer()?.tokenizer().eos_id();
    let context = model.architecture().context;
    let (mut done, mut texts) = (0, Vec::new());
    while done < tokens {
        let needed = (tokens - done).div_ceil(longest.max(1));
        let first = texts.len() as u64;
        let last = first + needed.clamp(at_once, SIDE_BY_SIDE) as u64;
        let requests: Vec<Request> = (first..last)
            .map(|index| request(&openings, context, longest, (first_seed, index)))
            .collect();
        done += requests.iter().map(|request| request.prompt.len()).sum::<usize>();
        let mut told = Ok(());
        let answers = model.generate_many(&requests, SIDE_BY_SIDE, &mut |_, step| {
            if let (ManyStep::Step(Step::Token(_)), Ok(())) = (step, &told) {
                done += 1;
                let total = tokens.max(done);
                told = on_progress(CalibrationProgress { done, total });
            }
            match told {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        })?;
        told?;
        texts.extend(requests.into_iter().zip(answers).map(|(request, answer)| {
            let text = |answer: Answer| OwnText {
                end: end.filter(|_| answer.finish == Finish::EndToken),
                tokens: [request.prompt, answer.tokens].concat(),
            };
            answer.map(text).unwrap_or_default()
        }));
    }
    Ok(texts)
}

/// Asks for the text of this index.
fn request(openings: &[Vec<u32>], context: usize, longest: usize, (first_seed, index): (u64, u64)) -> Request {
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
