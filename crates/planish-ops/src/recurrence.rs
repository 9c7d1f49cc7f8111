//! Linear recurrences: every head keeps a matrix S (key_dim, value_dim). With q, k, v of a row, `step = softplus(scale * x + bias)`
//! held within limits and `S' = exp(-rate * step) * S`:
//! the scan of Mamba 2 (Dao and Gu, 2024): `S = S' + k^T (step * v)`, `output = q S + skip * v`;
//! the gated delta rule (Yang et al., 2024): `S = S' + k^T (sigmoid(strength) * (v - k S'))`, `output = q S`, with
//! `k = k / sqrt(k k + 1e-6)`, `q = q / sqrt((q q + 1e-6) * key_dim)`. Where every value of a key has a step of its own, so has every row of S
//! (Kimi Delta Attention, 2025).

use crate::{Ops, Places, Shape, Span};

/// Columns of a stored state are a multiple of this on every device.
pub const STATE_COLS: usize = 32;
/// Values of a key at most where each has a step of its own.
pub const MOST_STEPS: usize = 256;

/// Sizes of a recurrence and where its inputs stand in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecurrenceShape {
    /// Heads, each with a state (key_dim, value_dim).
    pub heads: usize,
    /// Queries and keys, each shared by heads / groups heads in a row.
    pub groups: usize,
    /// Values of a query or key.
    pub key_dim: usize,
    /// Values of a value.
    pub value_dim: usize,
    /// The order in a row of inputs.
    pub order: Order,
}

/// Where queries, keys and values stand in a row; all groups or heads of each side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As delta nets have them.
    QueryKeyValue,
    /// As Mamba 2 has them (x, B, C).
    ValueKeyQuery,
}

impl RecurrenceShape {
    /// Columns of the inputs.
    pub fn cols(&self) -> usize {
        2 * self.groups * self.key_dim + self.heads * self.value_dim
    }

    /// Rows and columns of a tensor that holds the state, in an order of the device's own.
    pub fn state(&self) -> (usize, usize) {
        (self.heads * self.key_dim, self.value_dim.next_multiple_of(STATE_COLS))
    }

    /// First columns of a head's query, key and value.
    pub fn starts(&self, head: usize) -> (usize, usize, usize) {
        let (keys, values) = (self.groups * self.key_dim, self.heads * self.value_dim);
        let (key, value) = (head / (self.heads / self.groups) * self.key_dim, head * self.value_dim);
        match self.order {
            Order::QueryKeyValue => (key, keys + key, 2 * keys + value),
            Order::ValueKeyQuery => (values + keys + key, values + key, value),
        }
    }
}

/// Rows to take in, one after another.
pub struct Recurrence<'a, O: Ops> {
    /// Rows to compute. At position 0 the state of a sequence counts as zero, whatever its slot holds.
    pub places: Places<'a, O>,
    /// Sizes, and where queries, keys and values stand in a row.
    pub shape: RecurrenceShape,
    /// Queries, keys and values. // (rows, shape.cols())
    pub inputs: &'a O::Tensor,
    /// How much is forgotten.
    pub steps: Steps<'a, O>,
    /// What is written.
    pub rule: Rule<'a, O>,
    /// S of every sequence and head in f32, in an order of the device's own; moved on by this. // (slots * rows, cols) of
    /// [`RecurrenceShape::state`]
    pub state: &'a mut O::Tensor,
    /// (rows, heads * value_dim)
    pub output: &'a mut O::Tensor,
}

/// The steps of all heads, or of all values of their keys, which are `steps` in number.
pub struct Steps<'a, O: Ops> {
    /// x. // (rows, steps)
    pub inputs: &'a O::Tensor,
    /// Multiplies x.
    pub scale: f32,
    /// Added to it. // (1, steps)
    pub bias: &'a O::Tensor,
    /// Least and largest step.
    pub limits: (f32, f32),
    /// At least 0. // (1, heads)
    pub rates: &'a O::Tensor,
}

/// What is written to the state.
pub enum Rule<'a, O: Ops> {
    /// The gated delta rule.
    Delta {
        /// (rows, heads)
        beta: &'a O::Tensor,
    },
    /// The scan of Mamba 2.
    Scan {
        /// (1, heads)
        skip: &'a O::Tensor,
    },
}

impl<O: Ops> Recurrence<'_, O> {
    /// Whether there is a step for every value of a key.
    pub fn has_steps_of_keys(&self) -> bool {
        self.shape.key_dim > 1 && self.steps.inputs.cols() == self.shape.heads * self.shape.key_dim
    }

    /// Panics on sizes that do not fit.
    pub fn check(&self) {
        let RecurrenceShape {
            heads,
            groups,
            value_dim,
            ..
        } = self.shape;
        let fits = |tensor: &O::Tensor, cols: usize| tensor.cols() == cols && self.places.end_row() <= tensor.rows();
        assert!(heads.is_multiple_of(groups) && fits(self.inputs, self.shape.cols()));
        assert!(fits(self.output, heads * value_dim) && self.steps.rates.cols() == heads);
        let steps = self.steps.inputs.cols();
        assert!(
            steps == heads
                || (self.has_steps_of_keys()
                    && self.shape.key_dim <= MOST_STEPS
                    && matches!(self.rule, Rule::Delta { .. }))
        );
        assert!(fits(self.steps.inputs, steps) && self.steps.bias.cols() == steps);
        match &self.rule {
            Rule::Delta { beta } => assert!(fits(beta, heads)),
            Rule::Scan { skip } => assert_eq!(skip.cols(), heads),
        }
        let (rows, cols) = self.shape.state();
        let holds = |span: &Span| (span.slot + 1) * rows <= self.state.rows();
        assert!(self.state.cols() == cols && self.places.spans.iter().all(holds));
    }
}

/// One row of one head for [`recurrence_reference`].
#[derive(Clone, Debug)]
pub struct RecurrenceRow {
    /// (key_dim)
    pub query: Vec<f32>,
    /// (key_dim)
    pub key: Vec<f32>,
    /// (value_dim)
    pub value: Vec<f32>,
    /// The step before softplus and limits, scale and bias included; one for each value of the key where there are several.
    pub steps: Vec<f32>,
    /// The strength of the delta rule before the sigmoid; `None` is a scan.
    pub strength: Option<f32>,
}

/// The formula for one head of a whole sequence, in f64. // (rows, value_dim)
pub fn recurrence_reference(rows: &[RecurrenceRow], rate: f32, skip: f32, limits: (f32, f32)) -> Vec<f64> {
    let wide = |values: &[f32]| values.iter().map(|&value| f64::from(value)).collect::<Vec<f64>>();
    let (key_dim, value_dim) = (rows[0].key.len(), rows[0].value.len());
    let mut state = vec![vec![0.0f64; value_dim]; key_dim];
    let mut outputs = Vec::new();
    for row in rows {
        let (mut query, mut key, value) = (wide(&row.query), wide(&row.key), wide(&row.value));
        let step = |&step: &f32| {
            f64::from(step)
                .exp()
                .ln_1p()
                .clamp(f64::from(limits.0), f64::from(limits.1))
        };
        for (state, own) in state.iter_mut().zip(row.steps.iter().cycle()) {
            let decay = (-f64::from(rate) * step(own)).exp();
            state.iter_mut().for_each(|value| *value *= decay);
        }
        let read = |state: &[Vec<f64>], by: &[f64], column: usize| -> f64 {
            state.iter().zip(by).map(|(row, by)| row[column] * by).sum()
        };
        let written: Vec<f64> = match row.strength {
            Some(strength) => {
                let length = |values: &[f64]| (values.iter().map(|value| value * value).sum::<f64>() + 1e-6).sqrt();
                let (of_key, of_query) = (length(&key), length(&query) * (key_dim as f64).sqrt());
                key.iter_mut().for_each(|value| *value /= of_key);
                query.iter_mut().for_each(|value| *value /= of_query);
                let strength = 1.0 / (1.0 + (-f64::from(strength)).exp());
                let columns = value.iter().enumerate();
                columns
                    .map(|(column, value)| strength * (value - read(&state, &key, column)))
                    .collect()
            }
            None => value.iter().map(|value| step(&row.steps[0]) * value).collect(),
        };
        for (state, key) in state.iter_mut().zip(&key) {
            state
                .iter_mut()
                .zip(&written)
                .for_each(|(state, written)| *state += key * written);
        }
        let columns = value.iter().enumerate();
        outputs.extend(columns.map(|(column, value)| read(&state, &query, column) + f64::from(skip) * value));
    }
    outputs
}
