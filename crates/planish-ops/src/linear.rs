//! Linear layers: `outputs[i] = input x weights[i]^T + biases[i]`, several weights sharing one input (query, key and value;
//! gate and up), packed or plain.

use crate::{Ops, Shape};

/// Rows through one or more weights.
pub struct Linear<'a, 'o, O: Ops> {
    /// Rows of the input to compute.
    pub rows: usize,
    /// Activations. // (rows, cols)
    pub input: &'a O::Tensor,
    /// Each (features, cols).
    pub weights: &'a [&'a O::Weight],
    /// Each (1, features), where there is one; as many as weights.
    pub biases: &'a [Option<&'a O::Tensor>],
    /// Each (rows, features); as many as weights.
    pub outputs: &'a mut [&'o mut O::Tensor],
}

impl<O: Ops> Linear<'_, '_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        assert!(self.weights.len() == self.outputs.len() && self.weights.len() == self.biases.len());
        assert!(self.rows <= self.input.rows());
        for ((weight, bias), output) in self.weights.iter().zip(self.biases).zip(self.outputs.iter()) {
            assert_eq!(weight.cols(), self.input.cols());
            assert_eq!(weight.rows(), output.cols());
            assert!(self.rows <= output.rows());
            assert!(bias.is_none_or(|bias| bias.cols() == weight.rows()));
        }
    }
}

/// The formula for one row and a plain weight (features, cols), in f64.
pub fn linear_reference(input: &[f32], weight: &[f32], bias: Option<&[f32]>) -> Vec<f64> {
    let dot = |row: &[f32]| {
        row.iter()
            .zip(input)
            .map(|(&a, &b)| f64::from(a) * f64::from(b))
            .sum::<f64>()
    };
    let rows = weight.chunks_exact(input.len()).enumerate();
    rows.map(|(index, row)| dot(row) + bias.map_or(0.0, |bias| f64::from(bias[index])))
        .collect()
}
