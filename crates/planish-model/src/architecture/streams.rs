//! Several hidden states side by side, of which layers compute one (alternating updates, Gemma 3n), as data.

use super::{LinearSpec, NormSpec};

/// The hidden states of a token: streams. They begin as projections of its embedding and end in one sum.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamsSpec {
    /// How many.
    pub count: usize,
    /// The one that layers compute.
    pub active: usize,
    /// From the first to each of the others, whose magnitude becomes that of the first, (hidden, hidden).
    pub project_in: Vec<LinearSpec>,
    /// Back likewise, before they are added to the first, (hidden, hidden).
    pub project_out: Vec<LinearSpec>,
    /// The least mean square that such a projection is divided by.
    pub floor: f32,
}

/// What a step does with the streams; x is the active one.
#[derive(Clone, Debug, PartialEq)]
pub enum StreamUse {
    /// Before the branches every stream gains the sum over streams of `coefficient * stream`.
    Predict(MixerSpec),
    /// After the branches, with `d = x - active stream`, every stream gains `(1 + coefficient) * d`.
    Correct(MixerSpec),
    /// The branch is added to all streams but the first.
    Spread,
}

/// `coefficients(tanh(router(norm(x))))`.
#[derive(Clone, Debug, PartialEq)]
pub struct MixerSpec {
    /// Before the router.
    pub norm: NormSpec,
    /// (count, hidden).
    pub router: LinearSpec,
    /// (count * count, count) of a prediction, those of a stream side by side; (count, count) of a correction.
    pub coefficients: LinearSpec,
}
