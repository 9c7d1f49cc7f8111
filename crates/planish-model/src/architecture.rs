//! What a decoder is made of, as data: a family file fills it in, the loader and the blocks follow it.
//!
//! Weights are named by their Hugging Face module path; `.weight` and `.bias` follow it in the checkpoint.

use planish_ops::Activation;

use crate::RopeSpec;

/// A decoder-only transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct Architecture {
    /// The name in `architectures` of config.json.
    pub name: String,
    /// Values of a hidden state.
    pub hidden: usize,
    /// Tokens.
    pub vocabulary: usize,
    /// Positions that the model was made for.
    pub context: usize,
    /// The token table, (vocabulary, hidden).
    pub embedding: String,
    /// Multiplies embedded tokens.
    pub embedding_scale: f32,
    /// Position encodings that layers refer to by index.
    pub ropes: Vec<RopeSpec>,
    /// From first to last.
    pub layers: Vec<LayerSpec>,
    /// Before the head.
    pub final_norm: NormSpec,
    /// From hidden states to logits.
    pub head: HeadSpec,
}

/// One layer: `x += attention(norm(x)); x += feed_forward(norm(x))`.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerSpec {
    /// Before attention.
    pub attention_norm: NormSpec,
    /// Attention.
    pub attention: AttentionSpec,
    /// Before the feed-forward block.
    pub feed_forward_norm: NormSpec,
    /// The feed-forward block.
    pub feed_forward: FeedForwardSpec,
}

/// How rows are normalized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x^2) + epsilon) * weight`.
    Rms,
}

/// A normalization.
#[derive(Clone, Debug, PartialEq)]
pub struct NormSpec {
    /// Module path.
    pub name: String,
    /// The formula.
    pub kind: NormKind,
    /// Values of a row.
    pub size: usize,
    /// Added to the mean square.
    pub epsilon: f32,
}

/// A linear layer, (rows, cols).
#[derive(Clone, Debug, PartialEq)]
pub struct LinearSpec {
    /// Module path.
    pub name: String,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Whether there is a bias.
    pub bias: bool,
}

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
    /// Normalizes every query head before rotation.
    pub query_norm: Option<NormSpec>,
    /// Normalizes every key head before rotation.
    pub key_norm: Option<NormSpec>,
    /// Index into [`Architecture::ropes`]; `None` rotates nothing.
    pub rope: Option<usize>,
    /// Multiplies the scores.
    pub scale: f32,
    /// A position sees this many, its own included; `None` is all.
    pub window: Option<usize>,
    /// Scores become `cap * tanh(score / cap)`.
    pub softcap: Option<f32>,
}

/// What follows attention in a layer.
#[derive(Clone, Debug, PartialEq)]
pub enum FeedForwardSpec {
    /// `down(activation(gate(x)) * up(x))`.
    Gated {
        /// (inner, hidden).
        gate: LinearSpec,
        /// (inner, hidden).
        up: LinearSpec,
        /// (hidden, inner).
        down: LinearSpec,
        /// The non-linearity.
        activation: Activation,
    },
    /// `down(activation(up(x)))`.
    Plain {
        /// (inner, hidden).
        up: LinearSpec,
        /// (hidden, inner).
        down: LinearSpec,
        /// The non-linearity.
        activation: Activation,
    },
}

impl FeedForwardSpec {
    /// Values between the two products.
    pub fn inner(&self) -> usize {
        match self {
            FeedForwardSpec::Gated { down, .. } | FeedForwardSpec::Plain { down, .. } => down.cols,
        }
    }
}

/// The last product.
#[derive(Clone, Debug, PartialEq)]
pub enum HeadSpec {
    /// The token table serves again.
    Tied,
    /// A layer of its own, (vocabulary, hidden).
    Separate(LinearSpec),
}

impl Architecture {
    /// Bytes of keys and values for one position, at `value_bytes` a value.
    pub fn cache_bytes_per_position(&self, value_bytes: usize) -> usize {
        let values = |layer: &LayerSpec| 2 * layer.attention.kv_heads * layer.attention.head_dim;
        self.layers.iter().map(values).sum::<usize>() * value_bytes
    }
}
