//! Causal attention with grouped queries: `output = softmax(scale * q k^T) v` over positions up to the row's own, or the
//! last `window` of them.

use std::ops::Range;

use crate::{Ops, Shape};

/// Query rows against a layer's cache, which already holds their keys and values.
pub struct Attention<'a, O: Ops> {
    /// Rows to compute.
    pub rows: usize,
    /// Position of row 0.
    pub first_position: usize,
    /// Rotated queries. // (rows, heads * head_dim)
    pub queries: &'a O::Tensor,
    /// Query heads; a multiple of the key-value heads.
    pub heads: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// A row sees this many positions, its own included; `None` is all.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Keys and values.
    pub key_values: &'a O::KeyValues,
    /// The result. // (rows, heads * head_dim)
    pub output: &'a mut O::Tensor,
}

impl<O: Ops> Attention<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.rows <= self.queries.rows() && self.rows <= self.output.rows());
        assert!(self.queries.cols() == self.output.cols() && self.queries.cols().is_multiple_of(self.heads));
    }
}

/// The formula for one query head against the keys and values (positions, head_dim) it sees, in f64.
pub fn attention_reference(query: &[f32], keys: &[f32], values: &[f32], seen: Range<usize>, scale: f32) -> Vec<f64> {
    let row = |rows: &[f32], position: usize| -> Vec<f64> {
        rows[position * query.len()..][..query.len()]
            .iter()
            .map(|&value| f64::from(value))
            .collect()
    };
    let score = |position: usize| {
        let key = row(keys, position);
        key.iter()
            .zip(query)
            .map(|(key, &query)| key * f64::from(query))
            .sum::<f64>()
            * f64::from(scale)
    };
    let scores: Vec<f64> = seen.clone().map(score).collect();
    let maximum = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = scores.iter().map(|score| (score - maximum).exp()).sum();
    let mut output = vec![0.0; query.len()];
    for (position, score) in seen.zip(scores) {
        let weight = (score - maximum).exp() / total;
        output
            .iter_mut()
            .zip(row(values, position))
            .for_each(|(output, value)| *output += weight * value);
    }
    output
}
