//! Causal self-attention, as data.

use planish_ops::{Activation, AlibiRule, TemperatureTuning};

use super::{LinearSpec, NormSpec};

/// Causal self-attention with grouped queries.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of a query or key head.
    pub head_dim: usize,
    /// Values of a value head.
    pub value_dim: usize,
    /// To queries, (heads * head_dim, hidden).
    pub query: LinearSpec,
    /// The layer whose keys and values these are: neither key nor value of this one is read.
    pub shares: Option<usize>,
    /// To keys, (kv_heads * head_dim, hidden).
    pub key: LinearSpec,
    /// To values, (kv_heads * value_dim, hidden).
    pub value: LinearSpec,
    /// Back, (hidden, heads * value_dim).
    pub output: LinearSpec,
    /// What attention gives is multiplied by `activation(gate(x))`.
    pub gate: Option<GateSpec>,
    /// Queries, keys and values are held between its negative and it.
    pub clip: Option<f32>,
    /// Normalizes queries: each head by one weight, each by its own, or all together, as its sizes say.
    pub query_norm: Option<NormSpec>,
    /// Normalizes keys likewise.
    pub key_norm: Option<NormSpec>,
    /// Normalizes values likewise. Values are keys before their norm and rotation where both layers are the same.
    pub value_norm: Option<NormSpec>,
    /// Normalizes what attention gives, before the output layer.
    pub output_norm: Option<NormSpec>,
    /// The norms of queries and keys come after the rotation, not before it.
    pub norm_after_rope: bool,
    /// Index into [`crate::Architecture::ropes`]; `None` rotates nothing.
    pub rope: Option<usize>,
    /// Multiplies the scores.
    pub scale: f32,
    /// The scale grows with the position of the query.
    pub temperature_tuning: Option<TemperatureTuning>,
    /// A position sees this many, its own included; `None` is all.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
    /// Name of a vector (heads): scores that take part in the softmax and have no value.
    pub sinks: Option<String>,
    /// Linear biases of positions.
    pub alibi: Option<AlibiSpec>,
}

/// The score of a head with a key at position p gains what the rule makes of slope and p.
#[derive(Clone, Debug, PartialEq)]
pub struct AlibiSpec {
    /// One for each head.
    pub slopes: Vec<f32>,
    /// What becomes of slopes and positions.
    pub rule: AlibiRule,
}

/// What multiplies the results of attention.
#[derive(Clone, Debug, PartialEq)]
pub struct GateSpec {
    /// (heads * value_dim, hidden).
    pub layer: LinearSpec,
    /// The non-linearity.
    pub activation: Activation,
}

impl GateSpec {
    /// The logistic function of what this layer gives.
    pub fn new(layer: LinearSpec) -> GateSpec {
        GateSpec {
            layer,
            activation: Activation::Sigmoid,
        }
    }

    /// The same where the stored layer has one row for each head: the row stands for all values of the head.
    pub fn of_heads(name: impl Into<String>, attention: &AttentionSpec) -> GateSpec {
        let stored = LinearSpec::new(name, attention.heads, attention.query.cols);
        let rows = (0..attention.heads).flat_map(|head| std::iter::repeat_n(head..head + 1, attention.value_dim));
        GateSpec::new(stored.cut(rows.collect()))
    }
}

/// How many heads there are and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSizes {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Values of a head.
    pub head_dim: usize,
}

impl AttentionSpec {
    /// Attention as in Llama, from the layers for query, key, value and output: the first rope rotates, scores are scaled by
    /// the root of the head's length, every position sees all before it.
    pub fn new(sizes: HeadSizes, [query, key, value, output]: [LinearSpec; 4]) -> AttentionSpec {
        let HeadSizes {
            heads,
            kv_heads,
            head_dim,
        } = sizes;
        AttentionSpec {
            heads,
            kv_heads,
            head_dim,
            value_dim: head_dim,
            query,
            shares: None,
            key,
            value,
            output,
            gate: None,
            clip: None,
            query_norm: None,
            key_norm: None,
            value_norm: None,
            output_norm: None,
            norm_after_rope: false,
            rope: Some(0),
            scale: (head_dim as f32).powf(-0.5),
            temperature_tuning: None,
            window: None,
            softcap: None,
            sinks: None,
            alibi: None,
        }
    }
}
