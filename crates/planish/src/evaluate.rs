//! How well a model predicts a text: perplexity, and divergence from a reference model.
//!
//! The method is that of llama.cpp: the second half of each chunk of tokens is scored. Against a reference: the mean over scored
//! positions of the Kullback-Leibler divergence, and how often both models hold the same token for likeliest.

use crate::causal_lm::Feed;
use crate::{CausalLM, Error};

/// What is scored, and against what.
#[derive(Clone, Copy, Default)]
pub struct EvaluationOptions<'a> {
    /// Compare with this model.
    pub reference: Option<&'a CausalLM>,
    /// Score all tokens of a chunk but its first, in place of those of its second half.
    pub from_start: bool,
    /// Score tokens one at a time, as they are generated, in place of many at once.
    pub one_by_one: bool,
}

/// How far an evaluation is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EvaluationProgress {
    /// Chunks that are scored.
    pub done: usize,
    /// Chunks there are.
    pub total: usize,
    /// Of the scored chunks.
    pub perplexity: f64,
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// How many tokens were scored.
    pub scored_tokens: usize,
    /// The exponential of the mean surprise in nats; 1 is certainty.
    pub perplexity: f64,
    /// Beside the reference.
    pub comparison: Option<Comparison>,
}

/// A model beside its reference.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Comparison {
    /// Of the reference.
    pub perplexity: f64,
    /// Of the reference from the model, in nats.
    pub mean_kl_divergence: f64,
    /// The share of positions at which both hold the same token for likeliest.
    pub top1_agreement: f64,
}

impl CausalLM {
    /// Scores chunks of tokens; [`AutoTokenizer::chunks`](crate::AutoTokenizer::chunks) makes them of a text. Chunks of less than
    /// two tokens have nothing to score.
    ///
    /// # Errors
    /// A reference with another vocabulary; a token outside of the vocabulary, a chunk that the context cannot hold, a failing
    /// device.
    pub fn evaluate(
        &self,
        chunks: &[Vec<u32>],
        options: &EvaluationOptions<'_>,
        on_progress: &mut dyn FnMut(EvaluationProgress),
    ) -> Result<Evaluation, Error> {
        if let Some(reference) = options.reference {
            let (theirs, ours) = (reference.architecture().vocabulary, self.architecture().vocabulary);
            if theirs != ours {
                return Err(Error::Vocabularies {
                    reference: theirs,
                    model: ours,
                });
            }
        }
        let mut sums = Sums::default();
        for (index, chunk) in chunks.iter().enumerate() {
            self.score(chunk, options, &mut sums)?;
            on_progress(EvaluationProgress {
                done: index + 1,
                total: chunks.len(),
                perplexity: sums.model.perplexity(),
            });
        }
        let count = sums.model.count as f64;
        Ok(Evaluation {
            scored_tokens: sums.model.count,
            perplexity: sums.model.perplexity(),
            comparison: options.reference.map(|_| Comparison {
                perplexity: sums.reference.perplexity(),
                mean_kl_divergence: sums.divergence / count,
                top1_agreement: sums.agreements as f64 / count,
            }),
        })
    }

    fn score(&self, chunk: &[u32], options: &EvaluationOptions<'_>, sums: &mut Sums) -> Result<(), Error> {
        let first = if options.from_start { 0 } else { chunk.len() / 2 };
        let Some((_, read)) = chunk.split_last().filter(|(_, read)| read.len() > first) else {
            return Ok(());
        };
        let mut expected = Vec::new();
        if let Some(reference) = options.reference {
            reference.feed(read, first, Feed::AtOnce, &mut |_, logits| {
                expected.push(logits.to_vec())
            })?;
        }
        let feed = match options.one_by_one {
            true => Feed::OneByOne,
            false => Feed::AtOnce,
        };
        self.feed(read, first, feed, &mut |index, logits| {
            let token = chunk[index + 1];
            let normalizer = log_sum_exp(logits);
            sums.model.add(logits, normalizer, token);
            if let Some(expected) = expected.get(index - first) {
                let theirs = log_sum_exp(expected);
                sums.reference.add(expected, theirs, token);
                sums.divergence += divergence(expected, theirs, logits, normalizer);
                sums.agreements += usize::from(likeliest(expected) == likeliest(logits));
            }
        })
    }
}

/// Sums over scored positions.
#[derive(Default)]
struct Sums {
    model: Surprise,
    reference: Surprise,
    divergence: f64,
    agreements: usize,
}

/// Surprise at tokens, summed.
#[derive(Default)]
struct Surprise {
    count: usize,
    /// Sum of -ln of their probabilities.
    nats: f64,
}

impl Surprise {
    /// Counts `token` where the model gave these logits, whose [`log_sum_exp`] is `normalizer`.
    fn add(&mut self, logits: &[f32], normalizer: f64, token: u32) {
        self.count += 1;
        self.nats += normalizer - f64::from(logits[token as usize]);
    }

    fn perplexity(&self) -> f64 {
        (self.nats / self.count as f64).exp()
    }
}

/// The logarithm of what the exponentials of the logits sum to.
fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// Sum of p ln(p / q) with p from `expected` and q from `found`.
fn divergence(expected: &[f32], expected_normalizer: f64, found: &[f32], found_normalizer: f64) -> f64 {
    let terms = expected.iter().zip(found).map(|(&expected, &found)| {
        let log_p = f64::from(expected) - expected_normalizer;
        log_p.exp() * (log_p - (f64::from(found) - found_normalizer))
    });
    terms.sum()
}

fn likeliest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}
