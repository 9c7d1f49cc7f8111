//! The scan of Mamba 1 (Gu and Dao, 2023): every channel c keeps a vector S of as many values as a key has. With the key and query of
//! a row, which all channels share, `step = softplus(x[c] + bias[c])`:
//! `S = exp(-rate[c] * step) * S + step * value[c] * key`, `output[c] = query S + skip[c] * value[c]`.

use crate::{Ops, Places, Shape, Span};

/// Rows to take in, one after another.
pub struct ChannelScan<'a, O: Ops> {
    /// Rows to compute. At position 0 the state of a sequence counts as zero, whatever its slot holds.
    pub places: Places<'a, O>,
    /// (rows, channels)
    pub values: &'a O::Tensor,
    /// x. // (rows, channels)
    pub steps: &'a O::Tensor,
    /// (rows, key_dim)
    pub keys: &'a O::Tensor,
    /// (rows, key_dim)
    pub queries: &'a O::Tensor,
    /// (1, channels)
    pub step_bias: &'a O::Tensor,
    /// At least 0; those of the first value of the keys, then those of the next. // (1, key_dim * channels)
    pub rates: &'a O::Tensor,
    /// (1, channels)
    pub skip: &'a O::Tensor,
    /// S of every sequence in f32; moved on by this. // (slots * key_dim, channels)
    pub state: &'a mut O::Tensor,
    /// (rows, channels)
    pub output: &'a mut O::Tensor,
}

impl<O: Ops> ChannelScan<'_, O> {
    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let (channels, key_dim) = (self.values.cols(), self.keys.cols());
        let fits = |tensor: &O::Tensor, cols: usize| tensor.cols() == cols && self.places.end_row() <= tensor.rows();
        assert!(fits(self.values, channels) && fits(self.steps, channels) && fits(self.output, channels));
        assert!(fits(self.keys, key_dim) && fits(self.queries, key_dim));
        assert!(self.step_bias.cols() == channels && self.skip.cols() == channels);
        assert!(self.rates.cols() == key_dim * channels && self.state.cols() == channels);
        let holds = |span: &Span| (span.slot + 1) * key_dim <= self.state.rows();
        assert!(self.places.spans.iter().all(holds));
    }
}

/// One row of one channel for [`channel_scan_reference`].
#[derive(Clone, Debug)]
pub struct ChannelRow {
    /// (key_dim)
    pub query: Vec<f32>,
    /// (key_dim)
    pub key: Vec<f32>,
    /// The channel's value.
    pub value: f32,
    /// The step before softplus, bias included.
    pub step: f32,
}

/// The formula for one channel of a whole sequence, in f64; `rates` are the channel's, one for each value of a key.
pub fn channel_scan_reference(rows: &[ChannelRow], rates: &[f32], skip: f32) -> Vec<f64> {
    let mut state = vec![0.0f64; rates.len()];
    let mut outputs = Vec::new();
    for row in rows {
        let step = f64::from(row.step).exp().ln_1p();
        let value = f64::from(row.value);
        let mut output = f64::from(skip) * value;
        let numbers = rates.iter().zip(&row.key).zip(&row.query);
        for (state, ((&rate, &key), &query)) in state.iter_mut().zip(numbers) {
            *state = (-f64::from(rate) * step).exp() * *state + step * value * f64::from(key);
            output += f64::from(query) * *state;
        }
        outputs.push(output);
    }
    outputs
}
