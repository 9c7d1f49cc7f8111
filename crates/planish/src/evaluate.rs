//! How well a model predicts a text: perplexity, and divergence from a reference model.
//!
//! The method is that of llama.cpp: the second half of each chunk of tokens is scored. Against a reference: the mean over scored
//! positions of the Kullback-Leibler divergence, and how often both models hold the same token for likeliest.

use planish_model::{Cache, Chunk, Input, Want};

use crate::causal_lm::read;
use crate::scores::{Compared, Evaluation, FEW, Score, Sums};
use crate::{CausalLM, Error};

/// Logits of a reference that may wait for the model's, in bytes.
const WAITING_BYTES: usize = 1 << 29;

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

/// As [`CausalLM::evaluate`], of several models, for which the reference computes once. The perplexity of the progress is that of the
/// first.
///
/// # Errors
/// As [`CausalLM::evaluate`].
pub fn evaluate_all(
    models: &[&CausalLM],
    chunks: &[Vec<u32>],
    options: &EvaluationOptions<'_>,
    on_progress: &mut dyn FnMut(EvaluationProgress),
) -> Result<Vec<Evaluation>, Error> {
    for model in models {
        if let Some(reference) = options.reference {
            let (theirs, ours) = (reference.architecture().vocabulary, model.architecture().vocabulary);
            if theirs != ours {
                return Err(Error::Vocabularies {
                    reference: theirs,
                    model: ours,
                });
            }
        }
    }
    let mut sums: Vec<Sums> = models.iter().map(|_| Sums::default()).collect();
    let at_once = models.iter().map(|model| model.chunks_at_once(chunks, options)).min();
    let mut done = 0;
    for group in chunks.chunks(at_once.unwrap_or(1)) {
        let expected = expectations(group, options)?;
        let scores = models.iter().map(|model| model.score(group, &expected, options));
        let scores = scores.collect::<Result<Vec<_>, _>>()?;
        for index in 0..group.len() {
            for (sums, scores) in sums.iter_mut().zip(&scores) {
                sums.add(&scores[index]);
            }
            done += 1;
            on_progress(EvaluationProgress {
                done,
                total: chunks.len(),
                perplexity: sums.first().map_or(f64::NAN, Sums::perplexity),
            });
        }
    }
    let compared = options.reference.is_some();
    Ok(sums.into_iter().map(|sums| sums.evaluation(compared)).collect())
}

/// The reference's logits at each scored position of each chunk; none without one. // (positions, vocabulary) each
fn expectations(chunks: &[Vec<u32>], options: &EvaluationOptions<'_>) -> Result<Vec<Vec<Vec<f32>>>, Error> {
    let of_chunk = |tokens: &Vec<u32>| {
        let (first, end) = scored(tokens, options);
        let mut expected = Vec::new();
        if let Some(reference) = options.reference.filter(|_| end > first) {
            reference.logits_from(&tokens[..end], first, &mut |_, logits| expected.push(logits.to_vec()))?;
        }
        Ok(expected)
    };
    chunks.iter().map(of_chunk).collect()
}

/// The first token that is read for its logits, and the end of those that are read.
fn scored(tokens: &[u32], options: &EvaluationOptions<'_>) -> (usize, usize) {
    let first = if options.from_start { 0 } else { tokens.len() / 2 };
    (first, tokens.len().saturating_sub(1).max(first))
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
        let found = evaluate_all(&[self], chunks, options, on_progress)?;
        Ok(found[0])
    }

    /// How many chunks are scored side by side, one token of each at a time.
    fn chunks_at_once(&self, chunks: &[Vec<u32>], options: &EvaluationOptions<'_>) -> usize {
        if !options.one_by_one {
            return 1;
        }
        let longest = chunks.iter().map(Vec::len).max().unwrap_or(0);
        let waiting = match options.reference {
            Some(_) => WAITING_BYTES / (4 * longest * self.architecture().vocabulary).max(1),
            None => usize::MAX,
        };
        self.lock().batch().min(waiting).max(1)
    }

    /// The scores of each chunk's tokens.
    fn score(
        &self,
        chunks: &[Vec<u32>],
        expected: &[Vec<Vec<f32>>],
        options: &EvaluationOptions<'_>,
    ) -> Result<Vec<Vec<Score>>, Error> {
        let mut pieces = Vec::new();
        for (tokens, expected) in chunks.iter().zip(expected) {
            let (first, end) = scored(tokens, options);
            pieces.push(Piece {
                tokens,
                first,
                end,
                expected,
                scores: Vec::new(),
            });
        }
        match options.one_by_one {
            true => self.read_side_by_side(&mut pieces)?,
            false => {
                for piece in pieces.iter_mut().filter(|piece| piece.first < piece.end) {
                    let (tokens, first) = (&piece.tokens[..piece.end], piece.first);
                    self.logits_from(tokens, first, &mut |index, logits| piece.take(index, logits))?;
                }
            }
        }
        Ok(pieces.into_iter().map(|piece| piece.scores).collect())
    }

    /// One token of every piece in each pass.
    fn read_side_by_side(&self, pieces: &mut [Piece<'_>]) -> Result<(), Error> {
        let mut model = self.lock();
        let mut caches: Vec<Cache> = Vec::new();
        for piece in &*pieces {
            let mut cache = model.cache(piece.end);
            if piece.first < piece.end {
                read(&mut model, &piece.tokens[..piece.first], &mut cache)?;
            }
            caches.push(cache);
        }
        for step in 0.. {
            let index_of = |piece: &Piece<'_>| Some(piece.first + step).filter(|&index| index < piece.end);
            let mut members = Vec::new();
            let mut chunks = Vec::new();
            for (member, (piece, cache)) in pieces.iter().zip(&mut caches).enumerate() {
                let Some(index) = index_of(piece) else { continue };
                members.push((member, index));
                chunks.push(Chunk {
                    cache,
                    input: Input::Tokens(&piece.tokens[index..=index]),
                    want: Want::Logits,
                });
            }
            if chunks.is_empty() {
                break;
            }
            let mut each = |row: planish_model::Row<'_>| {
                let (member, index) = members[row.chunk];
                pieces[member].take(index, row.logits);
            };
            model.run(&mut chunks, &mut each)?;
        }
        Ok(())
    }
}

/// A chunk that is being scored.
struct Piece<'a> {
    tokens: &'a [u32],
    first: usize, // index of the first token that is read for its logits
    end: usize,   // of those that are read
    expected: &'a [Vec<f32>],
    scores: Vec<Score>,
}

impl Piece<'_> {
    /// Scores the token after index `index`, by the logits there.
    fn take(&mut self, index: usize, logits: &[f32]) {
        let token = self.tokens[index + 1];
        let normalizer = log_sum_exp(logits);
        let nats = |logits: &[f32], normalizer: f64| normalizer - f64::from(logits[token as usize]);
        let compared = self.expected.get(index - self.first).map(|expected| {
            let theirs = log_sum_exp(expected);
            Compared {
                nats: nats(expected, theirs),
                divergence: divergence(expected, theirs, logits, normalizer),
                agrees: likeliest(expected) == likeliest(logits),
                among_few: likeliest(logits).is_some_and(|token| is_among_few(expected, token)),
            }
        });
        self.scores.push(Score {
            nats: nats(logits, normalizer),
            compared,
        });
    }
}

/// The logarithm of what the exponentials of the logits sum to.
pub(crate) fn log_sum_exp(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    f64::from(largest) + sum.ln()
}

/// Sum of p ln(p / q) with p from `expected` and q from `found`.
pub(crate) fn divergence(expected: &[f32], expected_normalizer: f64, found: &[f32], found_normalizer: f64) -> f64 {
    let terms = expected.iter().zip(found).map(|(&expected, &found)| {
        let log_p = f64::from(expected) - expected_normalizer;
        log_p.exp() * (log_p - (f64::from(found) - found_normalizer))
    });
    terms.sum()
}

fn likeliest(logits: &[f32]) -> Option<usize> {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
}

/// Whether fewer than [`FEW`] tokens are likelier.
fn is_among_few(logits: &[f32], token: usize) -> bool {
    logits.iter().filter(|&&logit| logit > logits[token]).count() < FEW
}
