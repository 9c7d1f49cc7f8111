//! How to generate: what the caller asks for, what the checkpoint suggests, and transformers' defaults where both are silent.

use serde_json::{Map, Value};

use crate::files::{Files, parse_object};
use crate::sampler::{Restrictions, Sampling};
use crate::template::ChatTemplate;
use crate::{Constraint, Error, Grammar, Reading, Tokenizer};

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
    /// Texts that end the answer; they are not part of it. Only where text is generated, not tokens. Default: none.
    pub stop_strings: Option<Vec<String>>,
    /// No end token before so many tokens. Default: 0.
    pub min_new_tokens: Option<usize>,
    /// No run of so many tokens twice, the prompt included; 0 allows all. Default: 0.
    pub no_repeat_ngram_size: Option<usize>,
    /// Tokens that are never chosen. Default: none.
    pub suppress_tokens: Option<Vec<u32>>,
    /// Tokens that are not chosen first. Default: none.
    pub begin_suppress_tokens: Option<Vec<u32>>,
    /// Runs of tokens that are never chosen. Default: none.
    pub bad_words_ids: Option<Vec<Vec<u32>>>,
    /// What is added to the logit of the last token of a run, where the others stand before it. Default: none.
    pub sequence_bias: Option<Vec<(Vec<u32>, f32)>>,
    /// Logits of the prompt's tokens are multiplied by this if positive, else divided; above 0. Default: 1.
    pub encoder_repetition_penalty: Option<f32>,
    /// No run of so many tokens of the prompt comes again; 0 allows all. Default: 0.
    pub encoder_no_repeat_ngram_size: Option<usize>,
    /// The only token that may follow a prompt of one. Default: none.
    pub forced_bos_token_id: Option<u32>,
    /// The only tokens that may be the last of [`GenerationConfig::max_new_tokens`]. Default: none.
    pub forced_eos_token_id: Option<Vec<u32>>,
    /// Taken from the logits of tokens that the answer holds. Default: 0.
    pub presence_penalty: Option<f32>,
    /// Taken from the logits of tokens as often as the answer holds them. Default: 0.
    pub frequency_penalty: Option<f32>,
    /// What is added to the logits of tokens. Default: none.
    pub logit_bias: Option<Vec<(u32, f32)>>,
    /// Tell the log probability of every token of the answer, and of so many of the likeliest in its place, as the model has them
    /// before anything changes them. Default: not.
    pub logprobs: Option<usize>,
    /// How what the model writes is told apart, where its text is wanted. Default: all of it is its answer.
    pub reading: Reading,
    /// What the answer is made to be. Default: anything.
    pub constraint: Option<Constraint>,
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
            stop_strings: None,
            min_new_tokens: None,
            no_repeat_ngram_size: None,
            suppress_tokens: None,
            begin_suppress_tokens: None,
            bad_words_ids: None,
            sequence_bias: None,
            encoder_repetition_penalty: None,
            encoder_no_repeat_ngram_size: None,
            forced_bos_token_id: None,
            forced_eos_token_id: None,
            presence_penalty: None,
            frequency_penalty: None,
            logit_bias: None,
            logprobs: None,
            reading: Reading::default(),
            constraint: None,
        }
    }
}

/// A suggestion of the checkpoint, which counts where the caller says nothing: so long a value of the wrong kind is no error.
#[derive(Clone, Debug, Default, PartialEq)]
enum Suggested<T> {
    #[default]
    Nothing,
    Value(T),
    /// The value as the file has it, and what it should be.
    Wrong(&'static str, String, &'static str),
}

impl<T: Clone> Suggested<T> {
    /// What the caller asks for, else what the file suggests.
    fn under(&self, asked: Option<T>) -> Result<Option<T>, Error> {
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
    do_sample: Suggested<bool>,
    temperature: Suggested<f32>,
    top_k: Suggested<usize>,
    top_p: Suggested<f32>,
    min_p: Suggested<f32>,
    repetition_penalty: Suggested<f32>,
    max_new_tokens: Suggested<usize>,
    min_new_tokens: Suggested<usize>,
    max_length: Suggested<usize>,
    min_length: Suggested<usize>,
    no_repeat_ngram_size: Suggested<usize>,
    stop_strings: Suggested<Vec<String>>,
    suppress_tokens: Suggested<Vec<u32>>,
    begin_suppress_tokens: Suggested<Vec<u32>>,
    bad_words_ids: Suggested<Vec<Vec<u32>>>,
    sequence_bias: Suggested<Vec<(Vec<u32>, f32)>>,
    encoder_repetition_penalty: Suggested<f32>,
    encoder_no_repeat_ngram_size: Suggested<usize>,
    forced_bos_token_id: Suggested<Vec<u32>>,
    forced_eos_token_id: Suggested<Vec<u32>>,
    eos_token_id: Vec<u32>,
    /// A file whose end tokens are no tokens, and what they are.
    wrong_end: Option<(&'static str, String)>,
    notices: Vec<String>,
}

/// Every choice made and checked.
#[derive(Clone, Debug, PartialEq)]
pub struct GenerationPlan {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// How a token is chosen.
    pub sampling: Sampling,
    /// What may not be chosen, and when.
    pub restrictions: Restrictions,
    /// Tokens that end the text.
    pub eos_token_id: Vec<u32>,
    /// Texts that end the answer, for whoever turns tokens into text.
    pub stop_strings: Vec<String>,
    /// Log probabilities are told, with so many of the likeliest tokens.
    pub logprobs: Option<usize>,
    /// How what the model writes is told apart.
    pub reading: Reading,
    /// What the answer is made to be: the constraint of the config, which whoever knows the vocabulary compiles.
    pub grammar: Option<Grammar>,
}

/// Keys that change what transformers generates, and that are not obeyed here; the values with which they change nothing.
const NOT_OBEYED: [(&str, &[&str]); 21] = [
    ("typical_p", &["1.0", "1"]),
    ("epsilon_cutoff", &["0.0", "0"]),
    ("eta_cutoff", &["0.0", "0"]),
    ("top_h", &[]),
    ("num_beams", &["1"]),
    ("num_beam_groups", &["1"]),
    ("diversity_penalty", &["0.0", "0"]),
    ("penalty_alpha", &["0.0", "0"]),
    ("dola_layers", &[]),
    ("guidance_scale", &["1.0", "1"]),
    ("exponential_decay_length_penalty", &[]),
    ("constraints", &["[]"]),
    ("force_words_ids", &["[]"]),
    ("forced_decoder_ids", &["[]"]),
    ("remove_invalid_values", &["false"]),
    ("watermarking_config", &[]),
    ("presence_penalty", &["0.0", "0"]),
    ("frequency_penalty", &["0.0", "0"]),
    ("max_time", &[]),
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
                    let found = map.get("eos_token_id").map_or(String::new(), Value::to_string);
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
                notices.push(format!("{FILE}: {key} is {value}, which is not obeyed"));
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

impl GenerationConfig {
    /// Fills what is left open and checks every value.
    ///
    /// # Errors
    /// [`Error::Option`] for a value outside its range; a suggestion of the checkpoint that has the wrong kind, and that nothing
    /// given replaces.
    pub fn resolve(&self, defaults: &GenerationDefaults) -> Result<GenerationPlan, Error> {
        let asked = self.do_sample.or(self.temperature.map(|temperature| temperature > 0.0));
        let suggests = asked.is_none() && defaults.do_sample.under(None)?.unwrap_or(false);
        let may_sample = asked.unwrap_or(suggests);
        // What only matters for sampling is not looked at without.
        fn of<T: Clone>(do_sample: bool, suggested: &Suggested<T>, asked: Option<T>, default: T) -> Result<T, Error> {
            match (do_sample, suggested) {
                (false, Suggested::Wrong(..)) => Ok(asked.unwrap_or(default)),
                _ => Ok(suggested.under(asked)?.unwrap_or(default)),
            }
        }
        let temperature = of(may_sample, &defaults.temperature, self.temperature, 1.0)?;
        let do_sample = may_sample && temperature != 0.0;
        let forced_first = self.forced_bos_token_id.map(|token| vec![token]);
        let prompt_penalty = defaults
            .encoder_repetition_penalty
            .under(self.encoder_repetition_penalty)?;
        if let Some(penalty) = prompt_penalty.filter(|penalty| !(*penalty > 0.0 && penalty.is_finite())) {
            return Err(Error::Option {
                option: "encoder_repetition_penalty",
                found: penalty.to_string(),
                expected: "a number above 0",
            });
        }
        let sampling = Sampling {
            do_sample,
            temperature,
            top_k: of(do_sample, &defaults.top_k, self.top_k, 50)?,
            top_p: of(do_sample, &defaults.top_p, self.top_p, 1.0)?,
            min_p: of(do_sample, &defaults.min_p, self.min_p, 0.0)?,
            repetition_penalty: defaults
                .repetition_penalty
                .under(self.repetition_penalty)?
                .unwrap_or(1.0),
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            seed: self.seed.unwrap_or_else(crate::random::fresh_seed),
        };
        sampling.check()?;
        let lists = |suggested: &Suggested<Vec<u32>>, asked: &Option<Vec<u32>>| suggested.under(asked.clone());
        Ok(GenerationPlan {
            max_new_tokens: self.max_new_tokens,
            sampling,
            restrictions: Restrictions {
                suppressed: lists(&defaults.suppress_tokens, &self.suppress_tokens)?.unwrap_or_default(),
                suppressed_first: lists(&defaults.begin_suppress_tokens, &self.begin_suppress_tokens)?
                    .unwrap_or_default(),
                bad_words: defaults
                    .bad_words_ids
                    .under(self.bad_words_ids.clone())?
                    .unwrap_or_default(),
                repeat_none_of: defaults
                    .no_repeat_ngram_size
                    .under(self.no_repeat_ngram_size)?
                    .unwrap_or(0),
                least_tokens: defaults.min_new_tokens.under(self.min_new_tokens)?.unwrap_or(0),
                repeat_none_of_prompt: defaults
                    .encoder_no_repeat_ngram_size
                    .under(self.encoder_no_repeat_ngram_size)?
                    .unwrap_or(0),
                biases: last_of_equals(
                    defaults
                        .sequence_bias
                        .under(self.sequence_bias.clone())?
                        .unwrap_or_default(),
                ),
                prompt_penalty,
                token_biases: self.logit_bias.clone().unwrap_or_default(),
                forced_first: lists(&defaults.forced_bos_token_id, &forced_first)?
                    .and_then(|list| list.first().copied()),
                forced_last: lists(&defaults.forced_eos_token_id, &self.forced_eos_token_id)?.unwrap_or_default(),
                // An explicit number of new tokens goes before a length with the prompt, as in transformers.
                least_length: match self.min_new_tokens {
                    Some(_) => 0,
                    None => defaults.min_length.under(None)?.unwrap_or(0),
                },
            },
            eos_token_id: match (&self.eos_token_id, &defaults.wrong_end) {
                (Some(asked), _) => asked.clone(),
                (None, None) => defaults.eos_token_id.clone(),
                (None, Some((file, found))) => {
                    return Err(Error::bad_file(
                        *file,
                        format!("eos_token_id is {found}, expected token ids"),
                    ));
                }
            },
            stop_strings: defaults
                .stop_strings
                .under(self.stop_strings.clone())?
                .unwrap_or_default(),
            logprobs: self.logprobs,
            reading: self.reading.clone(),
            grammar: None,
        })
    }
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
            None => Suggested::Wrong(key, value.to_string(), expected),
        },
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

/// Of two biases of the same run the later counts, as in transformers.
fn last_of_equals(biases: Vec<(Vec<u32>, f32)>) -> Vec<(Vec<u32>, f32)> {
    let last: std::collections::HashMap<Vec<u32>, usize> = biases
        .iter()
        .enumerate()
        .map(|(at, (run, _))| (run.clone(), at))
        .collect();
    let numbered = biases.into_iter().enumerate();
    let kept = numbered.filter(|(at, (run, _))| last.get(run) == Some(at));
    kept.map(|(_, bias)| bias).collect()
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
