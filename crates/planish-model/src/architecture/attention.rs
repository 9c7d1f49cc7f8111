//! Causal self-attention, as data.

use super::{LinearSpec, NormSpec};

/// Causal self-attention with grouped queries.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
    /// To queries, (heads * head_dim, hidden).
    pub query: LinearSpec,
    /// To keys, (kv_heads * head_dim, hidden).
    pub key: LinearSpec,
    /// To values, (kv_heads * head_dim, hidden).
    pub value: LinearSpec,
    /// Back, (hidden, heads * head_dim).
    pub output: LinearSpec,
    /// Normalizes queries before rotation: each head by one weight, each by its own, or all together, as its sizes say.
    pub query_norm: Option<NormSpec>,
    /// Normalizes keys likewise.
    pub key_norm: Option<NormSpec>,
    /// Index into [`crate::Architecture::ropes`]; `None` rotates nothing.
    pub rope: Option<usize>,
    /// Multiplies the scores.
    pub scale: f32,
    /// A position sees this many, its own included; `None` is all.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}
