//! Causal convolution of every channel on its own (depthwise), with the activation and the gates around it:
//! `output[row] = gate * activation(bias + sum over taps of weight[tap] * x[row + tap + 1 - taps])`, `x = input_gate * input`.
//! What a layer remembers are the last `taps - 1` rows of x.

use crate::{Activation, Ops, Places, Shape, Span, gate_reference};

/// Rows to convolve.
pub struct Convolution<'a, O: Ops> {
    /// Rows to compute. At position 0 the history of a sequence counts as zero, whatever its slot holds.
    pub places: Places<'a, O>,
    /// (rows, channels)
    pub input: &'a O::Tensor,
    /// Multiplies the input. // (rows, channels)
    pub input_gate: Option<&'a O::Tensor>,
    /// Oldest input first. // (1, taps * channels)
    pub weight: &'a O::Tensor,
    /// Added to the sum. // (1, channels)
    pub bias: Option<&'a O::Tensor>,
    /// Of the sum.
    pub activation: Option<Activation>,
    /// Multiplies the result. // (rows, channels)
    pub output_gate: Option<&'a O::Tensor>,
    /// The last rows of x in f32 of every sequence, oldest first; moved on by this. // (slots * (taps - 1), channels)
    pub history: &'a mut O::Tensor,
    /// The result. // (rows, channels)
    pub output: &'a mut O::Tensor,
}

impl<O: Ops> Convolution<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let channels = self.input.cols();
        let fits = |tensor: &O::Tensor| tensor.cols() == channels && self.places.end_row() <= tensor.rows();
        assert!(fits(self.input) && fits(self.output));
        assert!(self.input_gate.is_none_or(fits) && self.output_gate.is_none_or(fits));
        assert!(self.weight.cols().is_multiple_of(channels));
        assert!(self.bias.is_none_or(|bias| bias.cols() == channels));
        let kept = self.weight.cols() / channels - 1;
        let holds = |span: &Span| (span.slot + 1) * kept <= self.history.rows();
        assert!(self.history.cols() == channels && self.places.spans.iter().all(holds));
    }
}

/// The formula for one channel of a whole sequence, in f64: x, the weights of its taps, oldest first, and its bias.
pub fn convolution_reference(x: &[f32], weight: &[f32], bias: f32, activation: Option<Activation>) -> Vec<f64> {
    let sum = |row: usize| {
        let taps = weight.iter().rev().zip(x[..=row].iter().rev());
        taps.map(|(&weight, &x)| f64::from(weight) * f64::from(x)).sum::<f64>() + f64::from(bias)
    };
    let activate = |sum: f64| activation.map_or(sum, |activation| gate_reference(activation, sum as f32, 1.0));
    (0..x.len()).map(|row| activate(sum(row))).collect()
}
