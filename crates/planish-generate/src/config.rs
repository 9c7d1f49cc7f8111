//! How to generate: what the caller asks for, what the checkpoint suggests, and transformers' defaults where both are silent.

use serde_json::{Map, Value};

use crate::files::{Files, parse_object};
use crate::sampler::Sampling;
use crate::{Error, Tokenizer};

const FILE: &str = "generation_config.json";

/// What the caller asks for. `None` leaves a choice to the checkpoint's `generation_config.json`, then to transformers'
/// default. A temperature of 0 is greedy; one above 0 samples.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationConfig {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// Sample, or always take the likeliest token. Default: false; true if `temperature` is given above 0.
    pub do_sample: Option<bool>,
    /// Logits are divided by this; at least 0. Default: 1.
    pub temperature: Option<f32>,
    /// Only this many likeliest tokens; 0 is all. Default: 50.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability, in [0, 1]. Default: 1.
    pub top_p: Option<f32>,
    /// Only tokens at least this probable relative to the likeliest, in [0, 1]. Default: 0.
    pub min_p: Option<f32>,
    /// Logits of tokens that occurred are divided by this if positive, else multiplied; above 0. Default: 1.
    pub repetition_penalty: Option<f32>,
    /// The same seed gives the same choices on every platform. Default: another one each time.
    pub seed: Option<u64>,
    /// Tokens that end the text.
    pub eos_token_id: Option<Vec<u32>>,
}

impl Default for GenerationConfig {
    fn default() -> GenerationConfig {
        GenerationConfig {
            max_new_tokens: 256,
            do_sample: None,
            temperature: None,
            top_k: None,
            top_p: None,
            min_p: None,
            repetition_penalty: None,
            seed: None,
            eos_token_id: None,
        }
    }
}

/// What the checkpoint suggests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    do_sample: Option<bool>,
    temperature: Option<f32>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    repetition_penalty: Option<f32>,
    eos_token_id: Vec<u32>,
}

/// Every choice made and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationPlan {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// Tokens that end the text.
    pub eos_token_id: Vec<u32>,
}

impl GenerationDefaults {
    /// Reads `generation_config.json`. The end tokens come from there, else from `config.json`, else from the tokenizer.
    ///
    /// # Errors
    /// When the file is no JSON object or a value has the wrong type.
    pub fn read(files: &Files, tokenizer: Option<&Tokenizer>) -> Result<GenerationDefaults, Error> {
        let config = parse_object(FILE, files.generation_config.as_deref())?;
        let mut eos_token_id = token_ids(&config, FILE)?;
        if eos_token_id.is_empty() {
            eos_token_id = token_ids(&files.config, "config.json")?;
        }
        if eos_token_id.is_empty() {
            eos_token_id.extend(tokenizer.and_then(Tokenizer::eos_id));
        }
        Ok(GenerationDefaults {
            do_sample: read(&config, "do_sample", "true or false", Value::as_bool)?,
            temperature: read(&config, "temperature", "a number", as_f32)?,
            top_k: read(&config, "top_k", "a whole number", as_usize)?,
            top_p: read(&config, "top_p", "a number", as_f32)?,
            min_p: read(&config, "min_p", "a number", as_f32)?,
            repetition_penalty: read(&config, "repetition_penalty", "a number", as_f32)?,
            eos_token_id,
        })
    }
}

impl GenerationConfig {
    /// Fills what is left open and checks every value.
    ///
    /// # Errors
    /// [`Error::Option`] for a value outside its range.
    pub fn resolve(&self, defaults: &GenerationDefaults) -> Result<GenerationPlan, Error> {
        let temperature = self.temperature.or(defaults.temperature).unwrap_or(1.0);
        let asked = self.do_sample.or(self.temperature.map(|temperature| temperature > 0.0));
        let do_sample = asked.or(defaults.do_sample).unwrap_or(false) && temperature != 0.0;
        let sampling = Sampling {
            do_sample,
            temperature,
            top_k: self.top_k.or(defaults.top_k).unwrap_or(50),
            top_p: self.top_p.or(defaults.top_p).unwrap_or(1.0),
            min_p: self.min_p.or(defaults.min_p).unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0),
            seed: self.seed.unwrap_or_else(crate::random::fresh_seed),
        };
        sampling.check()?;
        Ok(GenerationPlan {
            max_new_tokens: self.max_new_tokens,
            sampling,
            eos_token_id: self
                .eos_token_id
                .clone()
                .unwrap_or_else(|| defaults.eos_token_id.clone()),
        })
    }
}

/// A value of the file, `None` if absent or null.
fn read<T>(
    config: &Map<String, Value>,
    key: &str,
    expected: &str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Result<Option<T>, Error> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match parse(value) {
            Some(parsed) => Ok(Some(parsed)),
            None => Err(Error::bad_file(FILE, format!("{key} is {value}, expected {expected}"))),
        },
    }
}

fn as_f32(value: &Value) -> Option<f32> {
    value.as_f64().map(|number| number as f32)
}

fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// `eos_token_id`: one id, a list of ids, or nothing.
fn token_ids(config: &Map<String, Value>, file: &str) -> Result<Vec<u32>, Error> {
    let id = |value: &Value| {
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| Error::bad_file(file, format!("eos_token_id is {value}, expected token ids")))
    };
    match config.get("eos_token_id") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}
