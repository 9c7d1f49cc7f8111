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
    pub unit: f32,
}

/// A token to choose by the first row of logits.
pub struct Choose<'a, O: Ops> {
    /// In f32. // (1, vocabulary)
    pub logits: &'a O::Tensor,
    /// How.
    pub choice: Choice,
    /// Tokens that were not taken before are forgotten.
    pub afresh: bool,
    /// Takes the token.
    pub chosen: &'a mut O::Chosen,
}

impl<O: Ops> Choose<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.logits.rows() >= 1);
        if let Choice::Drawn(draw) = self.choice {
            assert!(draw.temperature > 0.0 && (0.0..1.0).contains(&draw.unit));
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
    let mut left = f64::from(draw.unit) * total;
    let passed = tokens.iter().find(|&&(_, score)| {
        left -= weight(score);
        left < 0.0
    });
    passed.or(tokens.last()).map(|&(token, _)| token)
}
