//! Linear recurrences over a matrix of state per head: the gated delta rule (Yang et al., 2024) and Mamba 2 (Dao and Gu, 2024).
//!
//! A step shrinks the state S (key_dim, value_dim), writes `key^T w` to it and reads `query S`. Columns of S never meet, so
//! they are computed in strips of [`STRIP`] that stay in the nearest cache; `query S` is had from the state before the
//! step, with the share of `w` added, so that a step reads S once and writes it once.

use std::ops::Range;

use planish_ops::{MOST_STEPS, Recurrence, RecurrenceShape, Rule, Steps};

use crate::share::{SharedSlice, share_rows};
use crate::vector::{STRIP, StateStep, VectorFunctions};
use crate::{Cpu, CpuOps};

/// Rows whose coefficients are computed together.
const ROWS: usize = 32;
/// Added to the square of the length of keys and queries under the delta rule.
const EPSILON: f32 = 1e-6;

/// The numbers of one step of one head.
#[derive(Clone, Copy, Debug, Default)]
pub struct Coefficients {
    /// Factor of the old state.
    pub decay: f32,
    /// Factor of what is written.
    pub write: f32,
    /// Factor of the key.
    pub key: f32,
    /// Factor of the query.
    pub query: f32,
    /// Product of query and key, their factors included.
    pub overlap: f32,
    /// Factor of the value in the output.
    pub skip: f32,
}

/// Takes in every row.
pub(crate) fn recur(cpu: &Cpu, problem: Recurrence<'_, CpuOps>) {
    let of_keys = problem.has_steps_of_keys();
    let Recurrence {
        places,
        shape,
        inputs,
        steps,
        rule,
        state,
        output,
    } = problem;
    let head_values = shape.key_dim * shape.value_dim.next_multiple_of(STRIP);
    let slot_values = shape.heads * head_values;
    let (state, output) = (SharedSlice::new(state.all_mut()), SharedSlice::new(output.all_mut()));
    let job = Job {
        shape,
        of_keys,
        inputs: inputs.values(),
        steps,
        rule,
        output,
        functions: cpu.vector(),
    };
    let spans = places.spans;
    let rows_of_span = places.rows().div_ceil(spans.len().max(1));
    share_rows(
        cpu.pool(),
        spans.len() * shape.heads,
        4 * rows_of_span * head_values,
        |share| {
            for index in share {
                let (span, head) = (&spans[index / shape.heads], index % shape.heads);
                let start = span.slot * slot_values + head * head_values;
                // SAFETY: every head of a sequence belongs to one share.
                let state = unsafe { state.range(start..start + head_values) };
                if span.first_position == 0 {
                    state.fill(0.0);
                }
                for first in (span.first_row..span.end_row()).step_by(ROWS) {
                    job.advance(head, first..span.end_row().min(first + ROWS), state);
                }
            }
        },
    );
}

/// What reads and shrinks a state, see [`StateStep`].
struct Reading<'a> {
    query: &'a [f32],
    asked: &'a [f32],
    decays: Option<&'a [f32]>,
}

/// What all heads share.
struct Job<'a> {
    shape: RecurrenceShape,
    of_keys: bool, // whether there is a step for every value of a key
    inputs: &'a [f32],
    steps: Steps<'a, CpuOps>,
    rule: Rule<'a, CpuOps>,
    output: SharedSlice<'a, f32>,
    functions: &'static VectorFunctions,
}

impl Job<'_> {
    /// Takes at most ROWS rows into the state of a head. // (strips, key_dim, STRIP)
    fn advance(&self, head: usize, rows: Range<usize>, state: &mut [f32]) {
        if self.of_keys {
            return rows.for_each(|row| self.advance_by_keys(head, row, state));
        }
        let mut coefficients = [Coefficients::default(); ROWS];
        for (row, coefficients) in rows.clone().zip(&mut coefficients) {
            *coefficients = self.coefficients(row, head);
        }
        for (strip, state) in state.chunks_exact_mut(self.shape.key_dim * STRIP).enumerate() {
            for (row, &coefficients) in rows.clone().zip(&coefficients) {
                let (query, key) = self.query_and_key(row, head);
                let by = Reading {
                    query,
                    asked: key,
                    decays: None,
                };
                self.step((row, head, strip), state, coefficients, by);
            }
        }
    }

    /// The same for one row whose keys have steps of their own: its query and key see what is left of the state.
    fn advance_by_keys(&self, head: usize, row: usize, state: &mut [f32]) {
        let key_dim = self.shape.key_dim;
        let [mut decays, mut asked, mut reading] = [[0.0f32; MOST_STEPS]; 3];
        let (query, key) = self.query_and_key(row, head);
        let first = (row * self.shape.heads + head) * key_dim;
        for (index, decay) in decays[..key_dim].iter_mut().enumerate() {
            let step = step_at(&self.steps, first + index, head * key_dim + index);
            *decay = (-self.steps.rates.values()[head] * step).exp();
            asked[index] = *decay * key[index];
            reading[index] = *decay * query[index];
        }
        let coefficients = self.coefficients(row, head);
        for (strip, state) in state.chunks_exact_mut(key_dim * STRIP).enumerate() {
            let by = Reading {
                query: &reading[..key_dim],
                asked: &asked[..key_dim],
                decays: Some(&decays[..key_dim]),
            };
            self.step((row, head, strip), state, coefficients, by);
        }
    }

    /// The query and key that a head sees at a row. // (key_dim) each
    fn query_and_key(&self, row: usize, head: usize) -> (&[f32], &[f32]) {
        let (query, key, _) = self.shape.starts(head);
        let inputs = &self.inputs[row * self.shape.cols()..(row + 1) * self.shape.cols()];
        (
            &inputs[query..][..self.shape.key_dim],
            &inputs[key..][..self.shape.key_dim],
        )
    }

    fn coefficients(&self, row: usize, head: usize) -> Coefficients {
        let (query, key) = self.query_and_key(row, head);
        let overlap = dot(query, key);
        let index = row * self.shape.heads + head;
        let (step, decay) = match self.of_keys {
            true => (1.0, 1.0),
            false => {
                let step = step_at(&self.steps, index, head);
                (step, (-self.steps.rates.values()[head] * step).exp())
            }
        };
        match &self.rule {
            Rule::Delta { beta } => {
                let shrink = 1.0 / (dot(key, key) + EPSILON).sqrt();
                let scale = 1.0 / ((dot(query, query) + EPSILON) * query.len() as f32).sqrt();
                Coefficients {
                    decay,
                    write: 1.0 / (1.0 + (-beta.values()[index]).exp()),
                    key: shrink,
                    query: scale,
                    overlap: overlap * shrink * scale,
                    skip: 0.0,
                }
            }
            Rule::Scan { skip } => Coefficients {
                decay,
                write: step,
                key: 1.0,
                query: 1.0,
                overlap,
                skip: skip.values()[head],
            },
        }
    }

    /// Takes a row into a strip of a head's state. // (key_dim, STRIP)
    fn step(
        &self,
        (row, head, strip): (usize, usize, usize),
        state: &mut [f32],
        coefficients: Coefficients,
        by: Reading<'_>,
    ) {
        let value_dim = self.shape.value_dim;
        let width = STRIP.min(value_dim - strip * STRIP);
        let (_, key) = self.query_and_key(row, head);
        let (_, _, value) = self.shape.starts(head);
        let (mut taken, mut given) = ([0.0; STRIP], [0.0; STRIP]);
        let from = row * self.shape.cols() + value + strip * STRIP;
        taken[..width].copy_from_slice(&self.inputs[from..from + width]);
        let mut step = StateStep {
            state,
            query: by.query,
            asked: by.asked,
            key,
            decays: by.decays,
            value: &taken,
            corrects: matches!(self.rule, Rule::Delta { .. }),
            coefficients,
            output: &mut given,
        };
        let to = (row * self.shape.heads + head) * value_dim + strip * STRIP;
        // SAFETY: the function is one that this machine supports; every head belongs to one share.
        unsafe {
            (self.functions.step_state)(&mut step);
            self.output.range(to..to + width).copy_from_slice(&given[..width]);
        }
    }
}

/// The step at an index of the inputs and one of the biases.
fn step_at(steps: &Steps<'_, CpuOps>, index: usize, bias: usize) -> f32 {
    let x = steps.inputs.values()[index] * steps.scale + steps.bias.values()[bias];
    let softplus = x.max(0.0) + (-x.abs()).exp().ln_1p();
    softplus.clamp(steps.limits.0, steps.limits.1)
}

fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sums = [0.0f32; 16];
    let (lefts, left_rest) = left.as_chunks::<16>();
    let (rights, right_rest) = right.as_chunks::<16>();
    for (left, right) in lefts.iter().zip(rights) {
        for ((sum, &left), &right) in sums.iter_mut().zip(left).zip(right) {
            *sum += left * right;
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    sums.iter().sum::<f32>() + rest
}
