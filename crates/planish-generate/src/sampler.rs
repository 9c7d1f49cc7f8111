//! What is asked of the device that chooses the next token: settings, one random number per token, penalties of the tokens so far.

use planish_model::{Adjustment, Choice, Draw};

use crate::Error;
use crate::random::Random;

/// How a token is chosen; see [`crate::GenerationConfig`] for the meaning of each field.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "documented at GenerationConfig")]
pub struct Sampling {
    pub do_sample: bool,
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub min_p: f32,
    pub repetition_penalty: f32,
    pub seed: u64,
}

impl Sampling {
    /// # Errors
    /// [`Error::Option`] for a value outside its range.
    pub fn check(&self) -> Result<(), Error> {
        let error = |option, found: f32, expected| {
            Err(Error::Option {
                option,
                found: found.to_string(),
                expected,
            })
        };
        let unit = 0.0..=1.0;
        if !(self.temperature >= 0.0 && self.temperature.is_finite()) {
            return error("temperature", self.temperature, "a number of at least 0");
        }
        if !unit.contains(&self.top_p) {
            return error("top_p", self.top_p, "a number from 0 to 1");
        }
        if !unit.contains(&self.min_p) {
            return error("min_p", self.min_p, "a number from 0 to 1");
        }
        if !(self.repetition_penalty > 0.0 && self.repetition_penalty.is_finite()) {
            return error("repetition_penalty", self.repetition_penalty, "a number above 0");
        }
        Ok(())
    }
}

/// Settings of an answer, its random stream, and the penalties of what was said.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    penalized: Vec<u64>, // bit `token % 64` of word `token / 64`: whether the token has its adjustment
    adjustments: Vec<Adjustment>,
}

impl Sampler {
    /// Starts the random stream of the seed.
    pub fn new(sampling: Sampling) -> Sampler {
        let random = Random::new(sampling.seed);
        Sampler {
            sampling,
            random,
            penalized: Vec::new(),
            adjustments: Vec::new(),
        }
    }

    /// Whether a choice depends on the tokens before it.
    pub fn depends_on_tokens(&self) -> bool {
        self.sampling.repetition_penalty != 1.0
    }

    /// Takes note of tokens of the prompt or the answer.
    pub fn observe(&mut self, tokens: &[u32]) {
        if !self.depends_on_tokens() {
            return;
        }
        for &token in tokens {
            let (word, bit) = (token as usize / 64, 1 << (token % 64));
            if self.penalized.len() <= word {
                self.penalized.resize(word + 1, 0);
            }
            // Once a token, however often it occurred.
            if self.penalized[word] & bit == 0 {
                self.penalized[word] |= bit;
                self.adjustments.push(Adjustment {
                    token,
                    penalty: self.sampling.repetition_penalty,
                    bias: 0.0,
                });
            }
        }
    }

    /// How the next token is chosen. Each call draws a number.
    pub fn next_choice(&mut self) -> Choice {
        if !self.sampling.do_sample {
            return Choice::Likeliest;
        }
        Choice::Drawn(Draw {
            temperature: self.sampling.temperature,
            top_k: self.sampling.top_k,
            top_p: self.sampling.top_p,
            min_p: self.sampling.min_p,
            unit: self.random.next_unit(),
        })
    }

    /// What changes the logits before that.
    pub fn adjustments(&self) -> &[Adjustment] {
        &self.adjustments
    }
}
