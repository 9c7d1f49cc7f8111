//! Latent attention (DeepSeek-V2, 2024), as data.

use planish_ops::TemperatureTuning;

use super::{LinearSpec, NormSpec, StackSpec};

/// Causal self-attention whose keys and values are made from a short latent vector of each position, and whose rotated part of
/// the key is shared by all heads. The cache holds latent vectors and rotated parts only.
#[derive(Clone, Debug, PartialEq)]
pub struct LatentAttentionSpec {
    /// Heads.
    pub heads: usize,
    /// Values of a query head that are not rotated; they come first.
    pub unrotated: usize,
    /// Values of a query head that are rotated.
    pub rotated: usize,
    /// To queries, (heads * (unrotated + rotated), hidden), or two layers with a norm between.
    pub query: LatentQuerySpec,
    /// To latent vectors, (latent, hidden).
    pub latent: LinearSpec,
    /// Normalizes latent vectors.
    pub latent_norm: NormSpec,
    /// To the rotated part of the key, (rotated, hidden).
    pub rotated_key: LinearSpec,
    /// From the unrotated part of a query to what meets latent vectors, (heads, latent, unrotated).
    pub embed_query: StackSpec,
    /// From what attention gives of latent vectors to values, (heads, values of a head, latent).
    pub value: StackSpec,
    /// Back, (hidden, heads * values of a head).
    pub output: LinearSpec,
    /// Index into [`crate::Architecture::ropes`]; `None` rotates nothing.
    pub rope: Option<usize>,
    /// Multiplies the scores.
    pub scale: f32,
    /// The scale grows with the position of the query.
    pub temperature_tuning: Option<TemperatureTuning>,
}

/// From hidden states to queries.
#[derive(Clone, Debug, PartialEq)]
pub enum LatentQuerySpec {
    /// At once.
    Direct(LinearSpec),
    /// By way of fewer values.
    Reduced {
        /// (fewer, hidden).
        down: LinearSpec,
        /// Of the fewer values.
        norm: NormSpec,
        /// (heads * (unrotated + rotated), fewer).
        up: LinearSpec,
    },
}
