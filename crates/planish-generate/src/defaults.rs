//! What a checkpoint suggests about generating: `generation_config.json`, and what its other files say about ends.

use serde_json::{Map, Value};

use crate::files::{Files, parse_object};
use crate::template::ChatTemplate;
use crate::{Error, Tokenizer};

const FILE: &str = "generation_config.json";

/// A suggestion of the checkpoint, which counts where the caller says nothing: so long a value of the wrong kind is no error.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum Suggested<T> {
    #[default]
    Nothing,
    Value(T),
    /// The value as the file has it, and what it should be.
    Wrong(&'static str, String, &'static str),
}

impl<T: Clone> Suggested<T> {
    /// What the caller asks for, else what the file suggests.
    pub(crate) fn under(&self, asked: Option<T>) -> Result<Option<T>, Error> {
        match (asked, self) {
            (Some(asked), _) => Ok(Some(asked)),
            (None, Suggested::Nothing) => Ok(None),
            (None, Suggested::Value(value)) => Ok(Some(value.clone())),
            (None, Suggested::Wrong(key, found, expected)) => {
                Err(Error::bad_file(FILE, format!("{key} is {found}, expected {expected}")))
            }
        }
    }
}

/// What the checkpoint suggests.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerationDefaults {
    pub(crate) do_sample: Suggested<bool>,
    pub(crate) temperature: Suggested<f32>,
    pub(crate) top_k: Suggested<usize>,
    pub(crate) top_p: Suggested<f32>,
    pub(crate) min_p: Suggested<f32>,
    pub(crate) repetition_penalty: Suggested<f32>,
    pub(crate) max_new_tokens: Suggested<usize>,
    pub(crate) min_new_tokens: Suggested<usize>,
    pub(crate) max_length: Suggested<usize>,
    pub(crate) min_length: Suggested<usize>,
    pub(crate) no_repeat_ngram_size: Suggested<usize>,
    pub(crate) stop_strings: Suggested<Vec<String>>,
    pub(crate) suppress_tokens: Suggested<Vec<u32>>,
    pub(crate) begin_suppress_tokens: Suggested<Vec<u32>>,
    pub(crate) bad_words_ids: Suggested<Vec<Vec<u32>>>,
    pub(crate) sequence_bias: Suggested<Vec<(Vec<u32>, f32)>>,
    pub(crate) encoder_repetition_penalty: Suggested<f32>,
    pub(crate) encoder_no_repeat_ngram_size: Suggested<usize>,
    pub(crate) forced_bos_token_id: Suggested<Vec<u32>>,
    pub(crate) forced_eos_token_id: Suggested<Vec<u32>>,
    pub(crate) top_h: Suggested<f32>,
    pub(crate) typical_p: Suggested<f32>,
    pub(crate) epsilon_cutoff: Suggested<f32>,
    pub(crate) eta_cutoff: Suggested<f32>,
    pub(crate) exponential_decay_length_penalty: Suggested<(usize, f32)>,
    pub(crate) max_time: Suggested<f64>,
    pub(crate) eos_token_id: Vec<u32>,
    /// A file whose end tokens are no tokens, and what they are.
    pub(crate) wrong_end: Option<(&'static str, String)>,
    notices: Vec<String>,
}

/// Keys that change what transformers generates, and that are not obeyed here; the values with which they change nothing.
const NOT_OBEYED: [(&str, &[&str]); 15] = [
    ("num_beams", &["1"]),
    ("num_beam_groups", &["1"]),
    ("diversity_penalty", &["0.0", "0"]),
    ("penalty_alpha", &["0.0", "0"]),
    ("dola_layers", &[]),
    ("guidance_scale", &["1.0", "1"]),
    ("constraints", &["[]"]),
    ("force_words_ids", &["[]"]),
    ("forced_decoder_ids", &["[]"]),
    ("remove_invalid_values", &["false"]),
    ("watermarking_config", &[]),
    ("presence_penalty", &["0.0", "0"]),
    ("frequency_penalty", &["0.0", "0"]),
    ("num_return_sequences", &["1"]),
    ("token_healing", &["false"]),
];

impl GenerationDefaults {
    /// Reads `generation_config.json`. The end tokens are all that the files name: there, in `config.json`, by the tokenizer, and by
    /// what the chat template puts after an answer.
    ///
    /// # Errors
    /// When the file is no JSON object.
    pub fn read(
        files: &Files,
        tokenizer: Option<&Tokenizer>,
        template: Option<&ChatTemplate>,
    ) -> Result<GenerationDefaults, Error> {
        let config = parse_object(FILE, files.generation_config.as_deref())?;
        let mut notices = Vec::new();
        let mut eos_token_id = Vec::new();
        let mut wrong_end = None;
        for (map, file) in [(&config, FILE), (&files.config, "config.json")] {
            match token_ids(map.get("eos_token_id")) {
                Some(ids) => eos_token_id.extend(ids),
                None => {
                    let found = map.get("eos_token_id").map_or(String::new(), shown);
                    wrong_end = Some((file, found));
                }
            }
        }
        eos_token_id.extend(tokenizer.and_then(Tokenizer::eos_id));
        if let (Some(tokenizer), Some(template)) = (tokenizer, template) {
            eos_token_id.extend(end_of_turn(tokenizer, template));
        }
        let mut seen = std::collections::HashSet::new();
        eos_token_id.retain(|id| seen.insert(*id));
        for (key, idle) in NOT_OBEYED {
            if let Some(value) = config.get(key).filter(|value| !value.is_null())
                && !idle.contains(&value.to_string().as_str())
            {
                notices.push(format!("{FILE}: {key} is {}, which is not obeyed", shown(value)));
            }
        }
        Ok(GenerationDefaults {
            do_sample: read(&config, "do_sample", "true or false", Value::as_bool),
            temperature: read(&config, "temperature", "a number", as_f32),
            top_k: read(&config, "top_k", "a whole number", as_count),
            top_p: read(&config, "top_p", "a number", as_f32),
            min_p: read(&config, "min_p", "a number", as_f32),
            repetition_penalty: read(&config, "repetition_penalty", "a number", as_f32),
            max_new_tokens: read(&config, "max_new_tokens", "a whole number", as_usize),
            min_new_tokens: read(&config, "min_new_tokens", "a whole number", as_usize),
            max_length: read(&config, "max_length", "a whole number", as_usize),
            min_length: read(&config, "min_length", "a whole number", as_usize),
            no_repeat_ngram_size: read(&config, "no_repeat_ngram_size", "a whole number", as_count),
            stop_strings: read(&config, "stop_strings", "a text or a list of texts", as_texts),
            suppress_tokens: read(&config, "suppress_tokens", "a list of tokens", |value| {
                token_ids(Some(value))
            }),
            begin_suppress_tokens: read(&config, "begin_suppress_tokens", "a list of tokens", |value| {
                token_ids(Some(value))
            }),
            bad_words_ids: read(&config, "bad_words_ids", "a list of lists of tokens", |value| {
                value.as_array()?.iter().map(|word| token_ids(Some(word))).collect()
            }),
            sequence_bias: read(
                &config,
                "sequence_bias",
                "a list of pairs of tokens and a number",
                as_biases,
            ),
            encoder_repetition_penalty: read(&config, "encoder_repetition_penalty", "a number", as_f32),
            encoder_no_repeat_ngram_size: read(&config, "encoder_no_repeat_ngram_size", "a whole number", as_count),
            forced_bos_token_id: read(&config, "forced_bos_token_id", "a token", |value| {
                token_ids(Some(value))
            }),
            forced_eos_token_id: read(&config, "forced_eos_token_id", "a token or a list of tokens", |value| {
                token_ids(Some(value))
            }),
            top_h: read(&config, "top_h", "a number", as_f32),
            typical_p: read(&config, "typical_p", "a number", as_f32),
            epsilon_cutoff: read(&config, "epsilon_cutoff", "a number", as_f32),
            eta_cutoff: read(&config, "eta_cutoff", "a number", as_f32),
            exponential_decay_length_penalty: read(
                &config,
                "exponential_decay_length_penalty",
                "a list of a number of tokens and a factor",
                as_growth,
            ),
            max_time: read(&config, "max_time", "a number", Value::as_f64),
            eos_token_id,
            wrong_end,
            notices,
        })
    }

    /// What the checkpoint asks for and does not get.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// How long an answer to so many tokens the checkpoint suggests.
    pub fn max_new_tokens(&self, prompt: usize) -> Option<usize> {
        match (&self.max_new_tokens, &self.max_length) {
            (Suggested::Value(tokens), _) => Some(*tokens),
            (_, Suggested::Value(length)) => Some(length.saturating_sub(prompt)),
            _ => None,
        }
    }
}

/// The special token that the template ends an answer with.
fn end_of_turn(tokenizer: &Tokenizer, template: &ChatTemplate) -> Option<u32> {
    let tokens = tokenizer.encode_plain(&template.end_of_turn()?).ok()?;
    let first = *tokens.first()?;
    tokenizer.special_text(first).map(|_| first)
}

/// A value of the file; one of -1 stands for none where that makes sense.
fn read<T>(
    config: &Map<String, Value>,
    key: &'static str,
    expected: &'static str,
    parse: impl Fn(&Value) -> Option<T>,
) -> Suggested<T> {
    match config.get(key) {
        None | Some(Value::Null) => Suggested::Nothing,
        Some(value) => match parse(value) {
            Some(parsed) => Suggested::Value(parsed),
            None => Suggested::Wrong(key, shown(value), expected),
        },
    }
}

/// A value for a message, which need not hold all of a long list.
fn shown(value: &Value) -> String {
    const MOST: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text,
    }
}

fn as_f32(value: &Value) -> Option<f32> {
    value.as_f64().map(|number| number as f32)
}

fn as_usize(value: &Value) -> Option<usize> {
    value.as_u64().and_then(|number| usize::try_from(number).ok())
}

/// A whole number; -1 is 0, which switches off.
fn as_count(value: &Value) -> Option<usize> {
    match value.as_i64() {
        Some(-1) => Some(0),
        _ => as_usize(value),
    }
}

fn as_texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) => list.iter().map(|text| text.as_str().map(str::to_owned)).collect(),
        _ => None,
    }
}

/// `[[[10, 45], -0.6], ..]`; other spellings exist in Python only.
fn as_biases(value: &Value) -> Option<Vec<(Vec<u32>, f32)>> {
    let pair = |pair: &Value| {
        let [tokens, bias] = pair.as_array()?.as_slice() else {
            return None;
        };
        let tokens = token_ids(Some(tokens)).filter(|tokens| !tokens.is_empty())?;
        let bias = as_f32(bias).filter(|bias| bias.is_finite())?;
        Some((tokens, bias))
    };
    match value {
        Value::Object(none) if none.is_empty() => Some(Vec::new()),
        value => value.as_array()?.iter().map(pair).collect(),
    }
}

fn as_growth(value: &Value) -> Option<(usize, f32)> {
    match value.as_array()?.as_slice() {
        [start, factor] => Some((as_usize(start)?, as_f32(factor)?)),
        _ => None,
    }
}

/// One token, a list of tokens, or nothing. A negative one is no token's id: it never comes, and so it says nothing.
fn token_ids(value: Option<&Value>) -> Option<Vec<u32>> {
    let ids = match value {
        None | Some(Value::Null) => return Some(Vec::new()),
        Some(Value::Array(list)) => list.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    let ids: Option<Vec<i64>> = ids.iter().map(Value::as_i64).collect();
    Some(ids?.into_iter().filter_map(|id| u32::try_from(id).ok()).collect())
}
