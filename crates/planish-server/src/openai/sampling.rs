//! Fields that say how to answer, common to all ways to ask.

use std::sync::Arc;

use planish::{Constraint, GenerationConfig, Reading, Request};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::state::State;

/// How to answer, and in which form.
pub(crate) struct Asked {
    config: GenerationConfig,
    /// Tokens of an answer, if the client says.
    most: Option<usize>,
    /// Answers to each prompt.
    pub answers: usize,
    pub stream: bool,
    /// The stream ends with a chunk of usage.
    pub usage: bool,
}

/// Answers to one prompt, at most.
const MOST_ANSWERS: u64 = 128;
/// Stop strings, at most.
const MOST_STOPS: usize = 16;

impl Asked {
    /// Takes the fields. `length` names what bounds an answer.
    pub(super) fn take(fields: &mut Fields, length: &[&str]) -> Result<Asked, ApiError> {
        let mut most = None;
        for name in length {
            most = fields.count(name, 1..=u64::MAX)?.or(most);
        }
        let answers = fields.count("n", 1..=MOST_ANSWERS)?.unwrap_or(1);
        let stream = fields.flag("stream")?.unwrap_or(false);
        let options = fields.object("stream_options")?;
        if options.is_some() && !stream {
            return Err(ApiError::field(
                "stream_options",
                "stream_options says nothing without stream",
            ));
        }
        let usage = match options.as_ref().and_then(|options| options.get("include_usage")) {
            None | Some(Value::Null) => false,
            Some(Value::Bool(usage)) => *usage,
            Some(other) => {
                let message = format!("include_usage is {other}, expected true or false");
                return Err(ApiError::field("stream_options.include_usage", message));
            }
        };
        let config = GenerationConfig {
            temperature: fields.number("temperature", 0.0..=2.0)?,
            top_p: fields.number("top_p", 0.0..=1.0)?,
            top_k: fields.count("top_k", 0..=u64::MAX)?,
            min_p: fields.number("min_p", 0.0..=1.0)?,
            repetition_penalty: fields.number("repetition_penalty", 0.01..=100.0)?,
            presence_penalty: fields.number("presence_penalty", -2.0..=2.0)?,
            frequency_penalty: fields.number("frequency_penalty", -2.0..=2.0)?,
            logit_bias: logit_bias(fields)?,
            seed: fields.seed("seed")?,
            stop_strings: fields.texts("stop", MOST_STOPS)?,
            // For measurements: an answer of just so many tokens.
            eos_token_id: fields
                .flag("ignore_eos")?
                .filter(|ignored| *ignored)
                .map(|_| Vec::new()),
            ..GenerationConfig::default()
        };
        for (name, idle) in [
            ("best_of", json!(answers)),
            ("echo", json!(false)),
            ("suffix", json!("")),
        ] {
            let float = idle.as_u64().map(|number| json!(number as f64));
            fields.refuse(name, &[idle.clone(), float.unwrap_or(idle)])?;
        }
        Ok(Asked {
            config,
            most,
            answers,
            stream,
            usage,
        })
    }

    /// Asks how likely tokens are, with so many of the likeliest.
    pub(super) fn set_logprobs(&mut self, likeliest: Option<usize>) {
        self.config.logprobs = likeliest;
    }

    /// Says how answers are read, and what they are made to be.
    pub(super) fn set_reading(&mut self, reading: Reading, constraint: Option<Constraint>) {
        (self.config.reading, self.config.constraint) = (reading, constraint);
    }

    /// Lets answers be anything.
    pub(crate) fn drop_form(&mut self) {
        self.config.constraint = None;
    }

    /// Makes sure that answers can be what they are made to be, which `param` asked for.
    pub(super) async fn check_form(&self, state: &Arc<State>, param: &str) -> Result<(), ApiError> {
        if self.config.constraint.is_none() {
            return Ok(());
        }
        // It takes a while: not on the threads that others wait for.
        let (state, config) = (Arc::clone(state), self.config.clone());
        let plan = move || state.engine.model().plan(&config);
        match tokio::task::spawn_blocking(plan).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(ApiError::field(param, error.to_string())),
            Err(_) => Err(ApiError::shutting_down()),
        }
    }

    /// Tokens of an answer where the client does not say.
    pub(super) fn set_default_length(&mut self, tokens: usize) {
        self.most.get_or_insert(tokens);
    }

    /// Requests for each prompt, the answers to a prompt in a row. The first answer has the seed, the others those that follow.
    pub(super) fn requests(&self, state: &State, prompts: Vec<Vec<u32>>) -> Vec<Request> {
        let model = state.engine.model();
        let answers = u64::try_from(self.answers).unwrap_or(1);
        let mut requests = Vec::new();
        for prompt in prompts {
            let room = model.architecture().context.saturating_sub(prompt.len());
            let suggested = || model.suggested_max_new_tokens(prompt.len());
            let max_new_tokens = self.most.or_else(suggested).unwrap_or(room).min(room.max(1));
            for answer in 0..answers {
                let config = GenerationConfig {
                    max_new_tokens,
                    seed: self.config.seed.map(|seed| seed.wrapping_add(answer)),
                    ..self.config.clone()
                };
                requests.push(Request {
                    prompt: prompt.clone(),
                    config,
                });
            }
        }
        requests
    }
}

/// `{"50256": -100}`
fn logit_bias(fields: &mut Fields) -> Result<Option<Vec<(u32, f32)>>, ApiError> {
    const NAME: &str = "logit_bias";
    let Some(biases) = fields.object(NAME)? else {
        return Ok(None);
    };
    let read = |(token, bias): (&String, &Value)| {
        let range = -100.0..=100.0;
        let bias = bias.as_f64().filter(|bias| range.contains(bias));
        let error = || {
            ApiError::field(
                NAME,
                format!("{NAME} has {token:?}, expected tokens with numbers from -100 to 100"),
            )
        };
        token.parse().ok().zip(bias.map(|bias| bias as f32)).ok_or_else(error)
    };
    biases.iter().map(read).collect::<Result<_, _>>().map(Some)
}
