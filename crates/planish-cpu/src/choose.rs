//! Choosing the next token from logits in memory: transformers' processors in its order (temperature, top-k, top-p, min-p), then
//! one draw by the remaining probabilities, which are added up in the order of tokens.

use std::collections::VecDeque;

use planish_ops::{Choice, Choose, Draw, MOST_CHOICES, RowChoice, Shape, adjust};

use crate::share::SharedSlice;
use crate::{CpuOps, Pool};

/// Scores that are passed over together where none of them is among the best.
const CHUNK: usize = 64;
/// Numbers compared side by side.
const LANES: usize = 16;

/// A token that may come next, with its processed logit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token's id.
    pub token: u32,
    /// Its logit over the temperature.
    pub score: f32,
}

/// Chooses tokens; keeps the memory that choosing takes.
#[derive(Clone, Debug, Default)]
pub struct Chooser {
    maxima: Vec<f32>,  // (chunks)
    ordered: Vec<f32>, // (chunks): the same, as far as they were put in order
    candidates: Vec<Candidate>,
}

impl Chooser {
    /// The token of these logits; `None` if none of them is finite. // (vocabulary)
    pub fn choose(&mut self, logits: &[f32], choice: &Choice) -> Option<u32> {
        let Choice::Drawn(draw) = choice else {
            return likeliest(logits);
        };
        drawn(self.candidates(logits, draw), draw.unit)
    }

    /// The tokens that may be drawn, in the order of tokens; none if no logit is finite.
    pub fn candidates(&mut self, logits: &[f32], draw: &Draw) -> &[Candidate] {
        let Chooser {
            maxima,
            ordered,
            candidates,
        } = self;
        candidates.clear();
        maxima.clear();
        maxima.extend(logits.chunks(CHUNK).map(largest));
        if likeliest(logits).is_none() {
            return candidates;
        }
        let (temperature, top_k) = (draw.temperature, draw.top_k);
        let least = least_of_best(maxima, top_k, ordered) / temperature;
        // Most chunks hold nothing of the best: one comparison for each of them.
        for (index, (chunk, maximum)) in logits.chunks(CHUNK).zip(&*maxima).enumerate() {
            if maximum / temperature < least {
                continue;
            }
            let finite = chunk.iter().enumerate().filter(|(_, score)| score.is_finite());
            candidates.extend(finite.map(|(at, score)| Candidate {
                token: (index * CHUNK + at) as u32,
                score: score / temperature,
            }));
        }
        keep_top_k(candidates, top_k);
        keep_top_p(candidates, draw.top_p);
        keep_min_p(candidates, draw.min_p);
        candidates
    }
}

/// The token that a number in [0, 1) draws of these candidates, by the softmax of their scores; `None` if there is none.
pub fn drawn(candidates: &[Candidate], unit: f64) -> Option<u32> {
    let best = best_score(candidates);
    let weight = |candidate: &Candidate| f64::from(candidate.score - best).exp();
    let total: f64 = candidates.iter().map(weight).sum();
    let mut left = unit * total;
    for candidate in candidates {
        left -= weight(candidate);
        if left < 0.0 {
            return Some(candidate.token);
        }
    }
    // Rounding may leave a crumb above the last candidate.
    candidates.last().map(|candidate| candidate.token)
}

fn best_score(candidates: &[Candidate]) -> f32 {
    let scores = candidates.iter().map(|candidate| candidate.score);
    scores.fold(f32::NEG_INFINITY, f32::max)
}

/// Chosen tokens: the last of every sequence, and those of the passes that were not taken yet.
#[derive(Default)]
pub struct CpuChosen {
    last: Vec<u32>, // (slots)
    waiting: VecDeque<Vec<Option<u32>>>,
    spare: Vec<Vec<Option<u32>>>, // memory of passes that were taken
    choosers: Vec<Chooser>,       // (slots of the pool)
}

impl CpuChosen {
    /// The last token chosen for a sequence.
    pub(crate) fn last(&self, slot: usize) -> u32 {
        self.last[slot]
    }

    /// Chooses the token of every row.
    pub(crate) fn choose(&mut self, pool: &Pool, rows: &[RowChoice<'_>], logits: &mut [f32], vocabulary: usize) {
        assert!(self.waiting.len() < MOST_CHOICES, "tokens are taken as they are chosen");
        let mut tokens = self.spare.pop().unwrap_or_default();
        tokens.clear();
        tokens.resize(rows.len(), None);
        self.choosers
            .resize_with(pool.threads().max(self.choosers.len()), Chooser::default);
        let (choosers, logits, chosen) = (
            SharedSlice::new(&mut self.choosers),
            SharedSlice::new(logits),
            SharedSlice::new(&mut tokens),
        );
        pool.chunks(rows.len(), |slot, index| {
            // SAFETY: every row is given to one call, and calls with one slot do not overlap.
            let (chooser, logits, chosen) = unsafe {
                (
                    &mut choosers.range(slot..slot + 1)[0],
                    logits.part(index, vocabulary),
                    &mut chosen.range(index..index + 1)[0],
                )
            };
            adjust(logits, rows[index].adjustments, rows[index].mask);
            *chosen = chooser.choose(logits, &rows[index].choice);
        });
        for (row, token) in rows.iter().zip(&tokens) {
            if self.last.len() <= row.slot {
                self.last.resize(row.slot + 1, 0);
            }
            self.last[row.slot] = token.unwrap_or(0);
        }
        self.waiting.push_back(tokens);
    }

    /// Those of the first pass that was not taken yet.
    pub(crate) fn take(&mut self, tokens: &mut Vec<Option<u32>>) {
        let taken = self.waiting.pop_front().expect("tokens were chosen");
        tokens.clear();
        tokens.extend_from_slice(&taken);
        self.spare.push(taken);
    }
}

/// For a checked problem.
pub(crate) fn choose(pool: &Pool, problem: Choose<'_, CpuOps>) {
    let Choose { logits, rows, chosen } = problem;
    let vocabulary = logits.cols();
    chosen.choose(pool, rows, logits.first_mut(rows.len()), vocabulary);
}

/// The position of the largest number, the first of equals.
fn likeliest(scores: &[f32]) -> Option<u32> {
    let best = scores.chunks(CHUNK).map(largest).fold(f32::NEG_INFINITY, f32::max);
    let position = scores.iter().position(|&score| score == best);
    let finite = position.filter(|_| best.is_finite());
    finite.map(|token| token as u32)
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
    let best = best_score(candidates);
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
    let best = best_score(candidates);
    candidates.retain(|candidate| f64::from(candidate.score - best).exp() >= f64::from(min_p));
}
