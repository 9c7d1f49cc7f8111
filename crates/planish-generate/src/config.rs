//! How to generate: what the caller asks for, what the checkpoint suggests, and transformers' defaults where both are silent.

use std::time::Duration;

use crate::Error;
use crate::defaults::{GenerationDefaults, Suggested};
use crate::restrictions::Restrictions;
use crate::sampler::Sampling;
use crate::warpers::{Cutoffs, Growth};
use crate::{Constraint, Grammar, Reading};

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
    /// Only the likeliest of 100 tokens that hold this share of their entropy, in (0, 1]. Default: all.
    pub top_h: Option<f32>,
    /// Only the tokens whose surprise is nearest to the average, which together reach this probability; above 0, all from 1 on.
    /// Default: 1.
    pub typical_p: Option<f32>,
    /// Only tokens at least this probable; all for a value outside of (0, 1). Default: 0.
    pub epsilon_cutoff: Option<f32>,
    /// The same by a bound that is lower where the model is less sure; all for a value outside of (0, 1). Default: 0.
    pub eta_cutoff: Option<f32>,
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
    /// After so many tokens, ends grow likelier by this factor with each. Default: never.
    pub exponential_decay_length_penalty: Option<(usize, f32)>,
    /// The answer ends with the first token after so many seconds. Default: no limit.
    pub max_time: Option<f64>,
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
            top_h: None,
            typical_p: None,
            epsilon_cutoff: None,
            eta_cutoff: None,
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
            exponential_decay_length_penalty: None,
            max_time: None,
            presence_penalty: None,
            frequency_penalty: None,
            logit_bias: None,
            logprobs: None,
            reading: Reading::default(),
            constraint: None,
        }
    }
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
    /// The answer ends with the first token after so long a time.
    pub max_time: Option<Duration>,
    /// Log probabilities are told, with so many of the likeliest tokens.
    pub logprobs: Option<usize>,
    /// How what the model writes is told apart.
    pub reading: Reading,
    /// Every token is chosen by its logits, which whoever drives the session may change before.
    pub by_logits: bool,
    /// What the answer is made to be: the constraint of the config, which whoever knows the vocabulary compiles.
    pub grammar: Option<Grammar>,
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
        fn given<T: Clone>(do_sample: bool, suggested: &Suggested<T>, asked: Option<T>) -> Result<Option<T>, Error> {
            match (do_sample, suggested) {
                (false, Suggested::Wrong(..)) => Ok(asked),
                _ => suggested.under(asked),
            }
        }
        fn of<T: Clone>(do_sample: bool, suggested: &Suggested<T>, asked: Option<T>, default: T) -> Result<T, Error> {
            Ok(given(do_sample, suggested, asked)?.unwrap_or(default))
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
        let cutoff = |suggested: &Suggested<f32>, asked| -> Result<Option<f32>, Error> {
            Ok(given(do_sample, suggested, asked)?.filter(|_| do_sample))
        };
        let inside = |cutoff: &f32| *cutoff > 0.0 && *cutoff < 1.0;
        let cutoffs = Cutoffs {
            top_h: cutoff(&defaults.top_h, self.top_h)?,
            typical_p: cutoff(&defaults.typical_p, self.typical_p)?.filter(|mass| *mass != 1.0),
            epsilon: cutoff(&defaults.epsilon_cutoff, self.epsilon_cutoff)?.filter(inside),
            eta: cutoff(&defaults.eta_cutoff, self.eta_cutoff)?.filter(inside),
        };
        let sampling = Sampling {
            do_sample,
            cutoffs,
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
                end_growth: growth(
                    defaults
                        .exponential_decay_length_penalty
                        .under(self.exponential_decay_length_penalty)?,
                )?,
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
            max_time: time_limit(defaults.max_time.under(self.max_time)?)?,
            logprobs: self.logprobs,
            reading: self.reading.clone(),
            by_logits: false,
            grammar: None,
        })
    }
}

/// How ends grow likelier after `start` tokens.
fn growth(suggested: Option<(usize, f32)>) -> Result<Option<Growth>, Error> {
    let Some((after, factor)) = suggested else {
        return Ok(None);
    };
    if !factor.is_finite() {
        return Err(Error::Option {
            option: "exponential_decay_length_penalty",
            found: factor.to_string(),
            expected: "a number of tokens and a finite factor",
        });
    }
    Ok(Some(Growth { after, factor }))
}

/// None or less ends an answer at its first token; more than there is time for is no limit.
fn time_limit(seconds: Option<f64>) -> Result<Option<Duration>, Error> {
    match seconds {
        Some(seconds) if seconds.is_nan() => Err(Error::Option {
            option: "max_time",
            found: seconds.to_string(),
            expected: "a number of seconds",
        }),
        seconds => Ok(seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok())),
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
