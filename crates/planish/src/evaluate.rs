//! How well a model predicts a text: perplexity, and divergence from a reference model.
//!
//! The method is that of llama.cpp: the second half of each chunk of tokens is scored. Against a reference: the mean over scored
//! positions of the Kullback-Leibler divergence, and how often both models hold the same token for likeliest.

use planish_model::{Cache, Chunk, Input, Want};

use crate::causal_lm::read;
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
        let mut done = 0;
        for group in chunks.chunks(self.chunks_at_once(chunks, options)) {
            for scores in self.score(group, options)? {
                scores.iter().for_each(|score| sums.add(score));
                done += 1;
                on_progress(EvaluationProgress {
                    done,
                    total: chunks.len(),
                    perplexity: sums.model.perplexity(),
                });
            }
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
    fn score(&self, chunks: &[Vec<u32>], options: &EvaluationOptions<'_>) -> Result<Vec<Vec<Score>>, Error> {
        let mut pieces = Vec::new();
        for tokens in chunks {
            let first = if options.from_start { 0 } else { tokens.len() / 2 };
            let read = &tokens[..tokens.len().saturating_sub(1).max(first)];
            let mut expected = Vec::new();
            if let Some(reference) = options.reference.filter(|_| read.len() > first) {
                reference.logits_from(read, first, &mut |_, logits| expected.push(logits.to_vec()))?;
            }
            pieces.push(Piece {
                tokens,
                first,
                end: read.len(),
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
    expected: Vec<Vec<f32>>,
    scores: Vec<Score>,
}

/// How a token was foreseen.
struct Score {
    nats: f64,
    compared: Option<Compared>,
}

/// Beside the reference.
struct Compared {
    nats: f64,
    divergence: f64,
    agrees: bool,
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
            }
        });
        self.scores.push(Score {
            nats: nats(logits, normalizer),
            compared,
        });
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

impl Sums {
    fn add(&mut self, score: &Score) {
        self.model.add(score.nats);
        if let Some(Compared {
            nats,
            divergence,
            agrees,
        }) = score.compared
        {
            self.reference.add(nats);
            self.divergence += divergence;
            self.agreements += usize::from(agrees);
        }
    }
}

/// Surprise at tokens, summed.
#[derive(Default)]
struct Surprise {
    count: usize,
    /// Sum of -ln of their probabilities.
    nats: f64,
}

impl Surprise {
    fn add(&mut self, nats: f64) {
        self.count += 1;
        self.nats += nats;
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
