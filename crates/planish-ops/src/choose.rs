//! The next token from its logits, chosen where they are: the likeliest, or one drawn by
//! `softmax(logits / temperature)` over what top-k, top-p and min-p leave, added up in the order of tokens.

use crate::{Ops, Shape};

/// How a token is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Choice {
    /// The largest logit, the first of equals.
    Likeliest,
    /// By probability.
    Drawn(Draw),
}

/// What is left of the tokens, as in transformers' processors in this order, and the number that one is drawn by. Tokens of equal
/// logits stay or go together. Logits that are not finite are no token's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Draw {
    /// Logits are divided by it; above 0.
    pub temperature: f32,
    /// So many of the likeliest; 0 is all.
    pub top_k: usize,
    /// The likeliest that together reach this probability.
    pub top_p: f32,
    /// At least so many times as probable as the likeliest.
    pub min_p: f32,
    /// In [0, 1): the token is the first at which the sum of the probabilities of it and those before it is larger.
    pub unit: f64,
}

/// What changes the logit of a token before a choice: `b = l + bias`, then `b > 0 ? b / penalty : b * penalty`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adjustment {
    /// Below the vocabulary; at most once in a row's list.
    pub token: u32,
    /// Above 0; 1 changes nothing. Repetition penalty (Keskar et al., 2019).
    pub penalty: f32,
    /// Added; negative infinity forbids the token.
    pub bias: f32,
}

impl Adjustment {
    /// The formula.
    pub fn of(&self, logit: f32) -> f32 {
        let biased = logit + self.bias;
        if biased > 0.0 {
            biased / self.penalty
        } else {
            biased * self.penalty
        }
    }
}

/// Applies adjustments and a mask, see [`RowChoice`], to logits in memory. // (vocabulary)
pub fn adjust(logits: &mut [f32], adjustments: &[Adjustment], mask: Option<&[u32]>) {
    for adjustment in adjustments {
        let logit = &mut logits[adjustment.token as usize];
        *logit = adjustment.of(*logit);
    }
    for (logits, allowed) in logits.chunks_mut(32).zip(mask.unwrap_or_default()) {
        for (bit, logit) in logits.iter_mut().enumerate() {
            if allowed >> bit & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
    }
}

/// How the token of one row is chosen.
#[derive(Clone, Copy, Debug)]
pub struct RowChoice<'a> {
    /// Of the row's sequence: its next pass may begin with the token before it is known.
    pub slot: usize,
    /// By the logits that the adjustments and the mask leave.
    pub choice: Choice,
    /// Penalties and biases.
    pub adjustments: &'a [Adjustment],
    /// Tokens that may be chosen: bit `token % 32` of word `token / 32`. // (vocabulary / 32, rounded up)
    pub mask: Option<&'a [u32]>,
}

/// Tokens to choose by the first rows of logits.
pub struct Choose<'a, O: Ops> {
    /// In f32; adjustments may change them. // (rows, vocabulary)
    pub logits: &'a mut O::Tensor,
    /// How. // (rows)
    pub rows: &'a [RowChoice<'a>],
    /// Takes the tokens.
    pub chosen: &'a mut O::Chosen,
}

impl<O: Ops> Choose<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(!self.rows.is_empty() && self.rows.len() <= self.logits.rows());
        let vocabulary = self.logits.cols();
        for row in self.rows {
            if let Choice::Drawn(draw) = row.choice {
                assert!(draw.temperature > 0.0 && (0.0..1.0).contains(&draw.unit));
            }
            let known = |adjustment: &Adjustment| (adjustment.token as usize) < vocabulary;
            assert!(row.adjustments.iter().all(known));
            assert!(row.mask.is_none_or(|mask| mask.len() == vocabulary.div_ceil(32)));
        }
    }
}

/// The formula in f64; `None` without a finite logit.
pub fn choose_reference(logits: &[f32], draw: &Draw) -> Option<usize> {
    let finite = logits.iter().enumerate().filter(|(_, logit)| logit.is_finite());
    let mut tokens: Vec<(usize, f32)> = finite.map(|(token, logit)| (token, logit / draw.temperature)).collect();
    let mut scores: Vec<f32> = tokens.iter().map(|&(_, score)| score).collect();
    scores.sort_by(|a, b| b.total_cmp(a));
    let best = f64::from(*scores.first()?);
    let weight = |score: f32| (f64::from(score) - best).exp();
    if draw.top_k > 0 {
        let least = scores[draw.top_k.min(scores.len()) - 1];
        scores.retain(|&score| score >= least);
        tokens.retain(|&(_, score)| score >= least);
    }
    let enough = f64::from(draw.top_p) * scores.iter().map(|&score| weight(score)).sum::<f64>();
    if draw.top_p < 1.0 {
        let mut mass = 0.0;
        let needed = scores.iter().position(|&score| {
            mass += weight(score);
            mass >= enough
        });
        let least = scores[needed.unwrap_or(scores.len() - 1)];
        tokens.retain(|&(_, score)| score >= least);
    }
    tokens.retain(|&(_, score)| weight(score) >= f64::from(draw.min_p));
    let total: f64 = tokens.iter().map(|&(_, score)| weight(score)).sum();
    let mut left = draw.unit * total;
    let passed = tokens.iter().find(|&&(_, score)| {
        left -= weight(score);
        left < 0.0
    });
    passed.or(tokens.last()).map(|&(token, _)| token)
}
