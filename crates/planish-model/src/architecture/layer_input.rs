//! Embeddings for each layer beside those of the hidden state (Gemma 3n), as data.

use planish_ops::Activation;

use super::{LinearSpec, NormSpec};

/// `norm(projection(x)) + scale * table[token]` for embedded tokens x: `layers` parts of `width` values, one for each layer.
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInputsSpec {
    /// Parts.
    pub layers: usize,
    /// Values of a part.
    pub width: usize,
    /// Module path of the table; tokens beyond it take its first row. // (rows, layers * width)
    pub table: String,
    /// Its rows.
    pub rows: usize,
    /// Multiplies its rows.
    pub scale: f32,
    /// (layers * width, hidden).
    pub projection: LinearSpec,
    /// Of each part.
    pub norm: NormSpec,
}

/// `output(activation(gate(x)) * part)` for the layer's part of [`LayerInputsSpec`].
#[derive(Clone, Debug, PartialEq)]
pub struct LayerInputSpec {
    /// Which part.
    pub layer: usize,
    /// How many parts there are.
    pub layers: usize,
    /// (width, hidden).
    pub gate: LinearSpec,
    /// The non-linearity.
    pub activation: Activation,
    /// Back, (hidden, width).
    pub output: LinearSpec,
}
