//! Causal attention with grouped queries: `output = softmax(scale * q k^T) v` over positions up to the row's own, or the
//! last `window` of them.

use std::ops::Range;

use half::bf16;

use crate::{Ops, Places, Shape};

/// Query rows against a layer's cache, which already holds their keys and values.
pub struct Attention<'a, O: Ops> {
    /// Rows to compute: each sees positions of its own sequence.
    pub places: Places<'a, O>,
    /// Rotated queries. // (rows, heads * head_dim)
    pub queries: &'a O::Tensor,
    /// Query heads; a multiple of the key-value heads.
    pub heads: usize,
    /// Multiplies the scores.
    pub scale: f32,
    /// How the scale grows along the sequence.
    pub temperature_tuning: Option<TemperatureTuning>,
    /// A row sees this many positions, its own included; `None` is all.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Linear biases of positions.
    pub alibi: Option<Alibi<'a, O>>,
    /// A score for each head that takes part in the softmax and has no value. // (1, heads)
    pub sinks: Option<&'a O::Tensor>,
    /// Keys and values of all sequences.
    pub key_values: &'a O::KeyValues,
    /// The result. // (rows, heads * value_dim)
    pub output: &'a mut O::Tensor,
}

/// The scale of a query at position p is multiplied by `1 + rate * ln(1 + floor(p / period))`: attention temperature tuning, as in
/// Llama 4. No span crosses a multiple of the period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TemperatureTuning {
    /// How fast.
    pub rate: f32,
    /// Positions between two steps.
    pub period: usize,
}

impl TemperatureTuning {
    /// What multiplies the scale at a position.
    pub fn factor(&self, position: usize) -> f32 {
        1.0 + self.rate * (1.0 + (position / self.period) as f32).ln()
    }
}

/// Attention with linear biases (Press et al., 2021): the score of a head with a key at position p gains
/// [`AlibiRule::bias`].
pub struct Alibi<'a, O: Ops> {
    /// One for each head. // (1, heads)
    pub slopes: &'a O::Tensor,
    /// What becomes of slopes and positions.
    pub rule: AlibiRule,
}

/// How linear biases are computed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlibiRule {
    /// Multiplies what the slopes give.
    pub factor: f32,
    /// Positions and their products with slopes are rounded to bf16, as transformers does for Falcon.
    pub rounded: bool,
}

impl AlibiRule {
    /// `factor * slope * position`.
    pub fn bias(&self, slope: f32, position: usize) -> f32 {
        let round = |value: f32| match self.rounded {
            true => bf16::from_f32(value).to_f32(),
            false => value,
        };
        self.factor * round(slope * round(position as f32))
    }
}

impl<O: Ops> Attention<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        self.places.check_rows([self.queries, &*self.output]);
        assert!(self.queries.cols().is_multiple_of(self.heads) && self.output.cols().is_multiple_of(self.heads));
        let slopes = self.alibi.as_ref().map(|alibi| alibi.slopes);
        for of_heads in [slopes, self.sinks].into_iter().flatten() {
            assert_eq!(of_heads.cols(), self.heads);
        }
    }
}

/// One query head against the keys and values that it sees.
pub struct AttentionHead<'a> {
    /// // (head_dim)
    pub query: &'a [f32],
    /// // (positions, head_dim)
    pub keys: &'a [f32],
    /// // (positions, value_dim)
    pub values: &'a [f32],
    /// Positions that the query sees.
    pub seen: Range<usize>,
    /// Multiplies the scores.
    pub scale: f32,
    /// As in [`Attention`].
    pub softcap: Option<f32>,
    /// The slope, as in [`Alibi`].
    pub alibi: Option<(f32, AlibiRule)>,
    /// As in [`Attention`].
    pub sink: Option<f32>,
}

/// The formula for one query head, in f64. // (value_dim)
pub fn attention_reference(head: &AttentionHead<'_>) -> Vec<f64> {
    let positions = head.keys.len() / head.query.len();
    let value_dim = head.values.len() / positions;
    let score = |position: usize| {
        let key = &head.keys[position * head.query.len()..];
        let products = key.iter().zip(head.query).map(|(&a, &b)| f64::from(a) * f64::from(b));
        let mut score = products.sum::<f64>() * f64::from(head.scale);
        if let Some(cap) = head.softcap.map(f64::from) {
            score = cap * (score / cap).tanh();
        }
        if let Some((slope, rule)) = head.alibi {
            score += f64::from(rule.bias(slope, position));
        }
        score
    };
    let scores: Vec<f64> = head.seen.clone().map(score).collect();
    let sink = head.sink.map_or(f64::NEG_INFINITY, f64::from);
    let maximum = scores.iter().copied().fold(sink, f64::max);
    let total: f64 = scores.iter().chain([&sink]).map(|score| (score - maximum).exp()).sum();
    let mut output = vec![0.0; value_dim];
    for (position, score) in head.seen.clone().zip(scores) {
        let weight = (score - maximum).exp() / total;
        let value = &head.values[position * value_dim..];
        for (output, &value) in output.iter_mut().zip(value) {
            *output += weight * f64::from(value);
        }
    }
    output
}
