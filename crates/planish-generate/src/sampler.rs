//! Choosing the next token from the logits: transformers' processors in its order (repetition penalty, temperature, top-k,
//! top-p, min-p), then one draw by the remaining probabilities, which are added up in the order of tokens.

use planish_model::{Choice, Draw};

use crate::Error;
use crate::random::Random;

/// Scores that are passed over together where none of them is among the best.
const CHUNK: usize = 64;
/// Numbers compared side by side.
const LANES: usize = 16;

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

/// A token that may come next, with its processed logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token's id.
    pub token: u32,
    /// Its logit after penalty and temperature.
    pub score: f32,
}

/// Chooses tokens; keeps the random stream between them.
#[derive(Clone, Debug)]
pub struct Sampler {
    sampling: Sampling,
    random: Random,
    scores: Vec<f32>,
    maxima: Vec<f32>,  // (chunks)
    ordered: Vec<f32>, // (chunks): the same, as far as they were put in order
    candidates: Vec<Candidate>,
}

impl Sampler {
    /// Starts the random stream of the seed.
    pub fn new(sampling: Sampling) -> Sampler {
        let random = Random::new(sampling.seed);
        Sampler {
            sampling,
            random,
            scores: Vec::new(),
            maxima: Vec::new(),
            ordered: Vec::new(),
            candidates: Vec::new(),
        }
    }

    /// The next token. `logits` holds one number per token of the vocabulary; `seen` the tokens so far, prompt included.
    ///
    /// # Errors
    /// [`Error::NoFiniteLogit`] if there is nothing to choose by.
    pub fn choose(&mut self, logits: &[f32], seen: &[u32]) -> Result<u32, Error> {
        if !self.sampling.do_sample {
            return likeliest(self.penalized(logits, seen));
        }
        self.candidates(logits, seen)?;
        let best = self
            .candidates
            .iter()
            .map(|candidate| candidate.score)
            .fold(f32::NEG_INFINITY, f32::max);
        let weight = |candidate: &Candidate| f64::from(candidate.score - best).exp();
        let total: f64 = self.candidates.iter().map(weight).sum();
        let mut left = self.random.next_unit() * total;
        for candidate in &self.candidates {
            left -= weight(candidate);
            if left < 0.0 {
                return Ok(candidate.token);
            }
        }
        // Rounding may leave a crumb above the last candidate.
        self.candidates
            .last()
            .map(|candidate| candidate.token)
            .ok_or(Error::NoFiniteLogit)
    }

    /// How a device that has the logits chooses the next token as [`Sampler::choose`] would: the same for the same seed but where
    /// rounding to f32 decides. `None` where the choice depends on the tokens so far.
    pub fn choice(&mut self) -> Option<Choice> {
        let Sampling {
            do_sample,
            temperature,
            top_k,
            top_p,
            min_p,
            repetition_penalty,
            ..
        } = self.sampling;
        if repetition_penalty != 1.0 {
            return None;
        }
        if !do_sample {
            return Some(Choice::Likeliest);
        }
        // The largest f32 below 1.
        let most = 1.0 - f32::EPSILON / 2.0;
        Some(Choice::Drawn(Draw {
            temperature,
            top_k,
            top_p,
            min_p,
            unit: (self.random.next_unit() as f32).min(most),
        }))
    }

    /// The tokens that may come next when sampling; never none.
    ///
    /// # Errors
    /// [`Error::NoFiniteLogit`] if there is nothing to choose by.
    pub fn candidates(&mut self, logits: &[f32], seen: &[u32]) -> Result<&[Candidate], Error> {
        likeliest(logits)?;
        let Sampling { temperature, top_k, .. } = self.sampling;
        let mut candidates = std::mem::take(&mut self.candidates);
        let mut maxima = std::mem::take(&mut self.maxima);
        let mut ordered = std::mem::take(&mut self.ordered);
        candidates.clear();
        maxima.clear();
        let scores = self.penalized(logits, seen);
        maxima.extend(scores.chunks(CHUNK).map(largest));
        let least = least_of_best(&maxima, top_k, &mut ordered) / temperature;
        // Most chunks hold nothing of the best: one comparison for each of them.
        for (index, (chunk, maximum)) in scores.chunks(CHUNK).zip(&maxima).enumerate() {
            if maximum / temperature < least {
                continue;
            }
            let finite = chunk.iter().enumerate().filter(|(_, score)| score.is_finite());
            candidates.extend(finite.map(|(at, score)| Candidate {
                token: (index * CHUNK + at) as u32,
                score: score / temperature,
            }));
        }
        (self.maxima, self.ordered) = (maxima, ordered);
        keep_top_k(&mut candidates, top_k);
        keep_top_p(&mut candidates, self.sampling.top_p);
        keep_min_p(&mut candidates, self.sampling.min_p);
        self.candidates = candidates;
        Ok(&self.candidates)
    }

    /// The logits with those of seen tokens moved away from being chosen.
    fn penalized<'a>(&'a mut self, logits: &'a [f32], seen: &[u32]) -> &'a [f32] {
        let penalty = self.sampling.repetition_penalty;
        if penalty == 1.0 {
            return logits;
        }
        self.scores.clear();
        self.scores.extend_from_slice(logits);
        for &token in seen {
            // Each token is penalized once, however often it occurred: always from the original logit.
            if let Some(&logit) = logits.get(token as usize) {
                self.scores[token as usize] = if logit < 0.0 { logit * penalty } else { logit / penalty };
            }
        }
        &self.scores
    }
}

/// The position of the largest number, the first of equals.
fn likeliest(scores: &[f32]) -> Result<u32, Error> {
    let best = scores.chunks(CHUNK).map(largest).fold(f32::NEG_INFINITY, f32::max);
    let position = scores.iter().position(|&score| score == best);
    let finite = position.filter(|_| best.is_finite());
    finite.map(|token| token as u32).ok_or(Error::NoFiniteLogit)
}

/// The largest number that is one, in lanes side by side.
fn largest(scores: &[f32]) -> f32 {
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = scores.as_chunks::<LANES>();
    for chunk in chunks {
        for (lane, &score) in lanes.iter_mut().zip(chunk) {
            *lane = if score > *lane { score } else { *lane };
        }
    }
    lanes
        .iter()
        .chain(rest)
        .fold(f32::NEG_INFINITY, |best, &score| best.max(score))
}

/// What at least `count` of the scores reach: the `count`-th largest of the maxima of chunks. Of no use, so below all, for 0 and
/// where there are fewer chunks.
fn least_of_best(maxima: &[f32], count: usize, ordered: &mut Vec<f32>) -> f32 {
    // An infinite score is no candidate.
    if count == 0 || count > maxima.len() || maxima.contains(&f32::INFINITY) {
        return f32::NEG_INFINITY;
    }
    ordered.clear();
    ordered.extend_from_slice(maxima);
    let largest_first = |left: &f32, right: &f32| right.total_cmp(left);
    *ordered.select_nth_unstable_by(count - 1, largest_first).1
}

/// Likeliest first; equals by token, so that the order never depends on the machine.
fn likelier(left: &Candidate, right: &Candidate) -> std::cmp::Ordering {
    right.score.total_cmp(&left.score).then(left.token.cmp(&right.token))
}

/// Keeps what scores no less than the `top_k`-th best; 0 keeps all.
fn keep_top_k(candidates: &mut Vec<Candidate>, top_k: usize) {
    if top_k == 0 || top_k >= candidates.len() {
        return;
    }
    let (_, last, _) = candidates.select_nth_unstable_by(top_k - 1, likelier);
    let least = last.score;
    candidates.retain(|candidate| candidate.score >= least);
    candidates.sort_unstable_by_key(|candidate| candidate.token);
}

/// Keeps the likeliest while those before hold less than `top_p` of the probability; always the first.
fn keep_top_p(candidates: &mut Vec<Candidate>, top_p: f32) {
    if top_p >= 1.0 || candidates.is_empty() {
        return;
    }
    let best = candidates
        .iter()
        .map(|candidate| candidate.score)
        .fold(f32::NEG_INFINITY, f32::max);
    let weight = |candidate: &Candidate| f64::from(candidate.score - best).exp();
    let enough = f64::from(top_p) * candidates.iter().map(weight).sum::<f64>();
    // The answer is nearly always among the first few hundred of 100,000: sort those first, and more only if needed.
    let mut sorted = 0;
    let mut kept = 0;
    let mut mass = 0.0;
    while kept < candidates.len() && (mass < enough || kept == 0) {
        if kept == sorted {
            let rest = &mut candidates[sorted..];
            let next = (sorted * 4).clamp(256, 1 << 20).min(rest.len());
            rest.select_nth_unstable_by(next - 1, likelier);
            rest[..next].sort_unstable_by(likelier);
            sorted += next;
        }
        mass += weight(&candidates[kept]);
        kept += 1;
    }
    candidates.truncate(kept);
    candidates.sort_unstable_by_key(|candidate| candidate.token);
}

/// Keeps what is at least `min_p` times as probable as the likeliest.
fn keep_min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    if min_p <= 0.0 {
        return;
    }
    let best = candidates
        .iter()
        .map(|candidate| candidate.score)
        .fold(f32::NEG_INFINITY, f32::max);
    candidates.retain(|candidate| f64::from(candidate.score - best).exp() >= f64::from(min_p));
}
