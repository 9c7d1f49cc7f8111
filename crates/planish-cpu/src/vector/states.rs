//! The bodies of the kernels of layers with a state: a row of a causal convolution, a step of a linear recurrence, a row of the scan of
//! channels.

use super::bodies::activate;
use super::exp::{exp, multiply_add};
use super::lanes::Lanes;
use crate::recurrence::Coefficients;
use planish_ops::Activation;

/// Columns of state that are computed together.
pub const STRIP: usize = planish_ops::STATE_COLS;
/// Channels of a scan that are computed together, at most.
pub const SCAN_CHANNELS: usize = 64;

/// One row of some channels.
pub struct ConvolutionRow<'a> {
    /// (channels)
    pub input: &'a [f32],
    /// Multiplies the input. // (channels)
    pub input_gate: Option<&'a [f32]>,
    /// Oldest input first; rows lie `stride` apart. // (taps, channels)
    pub weight: &'a [f32],
    /// Distance between rows of `weight`.
    pub stride: usize,
    /// (channels)
    pub bias: Option<&'a [f32]>,
    /// Of the sum.
    pub activation: Option<Activation>,
    /// Multiplies the result. // (channels)
    pub output_gate: Option<&'a [f32]>,
    /// Inputs, oldest first; the last row gets this one. // (taps, channels)
    pub window: &'a mut [f32],
    /// (channels)
    pub output: &'a mut [f32],
}

/// One step of the columns of a strip.
pub struct StateStep<'a> {
    /// (key_dim, STRIP)
    pub state: &'a mut [f32],
    /// What reads the state before the step. // (key_dim)
    pub query: &'a [f32],
    /// What asks it. // (key_dim)
    pub asked: &'a [f32],
    /// What is written by. // (key_dim)
    pub key: &'a [f32],
    /// Factors of the rows of the old state in place of that of all, which is 1 then. // (key_dim)
    pub decays: Option<&'a [f32]>,
    /// The columns' values.
    pub value: &'a [f32; STRIP],
    /// Whether what the state answers to the key is taken off the value.
    pub corrects: bool,
    /// Factors of this step.
    pub coefficients: Coefficients,
    /// What the query reads after the step.
    pub output: &'a mut [f32; STRIP],
}

/// One row of some channels, at most [`SCAN_CHANNELS`].
pub struct ScanRow<'a> {
    /// (channels)
    pub values: &'a [f32],
    /// Before bias and softplus. // (channels)
    pub steps: &'a [f32],
    /// (channels)
    pub step_bias: &'a [f32],
    /// (channels)
    pub skip: &'a [f32],
    /// (key_dim)
    pub key: &'a [f32],
    /// (key_dim)
    pub query: &'a [f32],
    /// Rows lie `stride` apart. // (key_dim, channels)
    pub rates: &'a [f32],
    /// Distance between rows of `rates`.
    pub stride: usize,
    /// (key_dim, channels)
    pub state: &'a mut [f32],
    /// (channels)
    pub output: &'a mut [f32],
}

#[inline(always)]
pub(super) fn scan_row<const FUSED: bool>(row: &mut ScanRow<'_>) {
    let width = row.values.len();
    let (mut steps, mut written) = ([0.0f32; SCAN_CHANNELS], [0.0f32; SCAN_CHANNELS]);
    let (steps, written, output) = (&mut steps[..width], &mut written[..width], &mut row.output[..width]);
    for ((step, &x), &bias) in steps.iter_mut().zip(row.steps).zip(row.step_bias) {
        let x = x + bias;
        *step = x.max(0.0) + (-x.abs()).exp().ln_1p();
    }
    for ((written, &step), &value) in written.iter_mut().zip(&*steps).zip(row.values) {
        *written = step * value;
    }
    for ((output, &skip), &value) in output.iter_mut().zip(row.skip).zip(row.values) {
        *output = skip * value;
    }
    let numbers = row.key.iter().zip(row.query).zip(row.rates.chunks(row.stride));
    for (state, ((&key, &query), rates)) in row.state.chunks_exact_mut(width).zip(numbers) {
        let channels = state
            .iter_mut()
            .zip(rates)
            .zip(&*steps)
            .zip(&*written)
            .zip(&mut *output);
        for ((((state, &rate), &step), &written), output) in channels {
            *state = multiply_add::<FUSED>(exp::<FUSED>(-rate * step), *state, key * written);
            *output = multiply_add::<FUSED>(*state, query, *output);
        }
    }
}

#[inline(always)]
pub(super) fn convolve_row<const FUSED: bool>(row: &mut ConvolutionRow<'_>) {
    let width = row.input.len();
    let (output, window) = (&mut row.output[..width], &mut *row.window);
    let newest = window.len() - width;
    match row.input_gate {
        Some(gate) => {
            for ((into, &value), &gate) in window[newest..].iter_mut().zip(row.input).zip(gate) {
                *into = value * gate;
            }
        }
        None => window[newest..].copy_from_slice(row.input),
    }
    match row.bias {
        Some(bias) => output.copy_from_slice(bias),
        None => output.fill(0.0),
    }
    for (inputs, weights) in window.chunks_exact(width).zip(row.weight.chunks(row.stride)) {
        for ((sum, &input), &weight) in output.iter_mut().zip(inputs).zip(weights) {
            *sum = multiply_add::<FUSED>(input, weight, *sum);
        }
    }
    if let Some(activation) = row.activation {
        activate::<FUSED>(activation, output, None);
    }
    if let Some(gate) = row.output_gate {
        output.iter_mut().zip(gate).for_each(|(value, &gate)| *value *= gate);
    }
}

/// # Safety
/// The instruction set of `L`.
#[inline(always)]
pub(super) unsafe fn step_state<L: Lanes>(step: &mut StateStep<'_>) {
    // SAFETY: the caller's promise; the registers of a strip are as many as it has values.
    unsafe {
        match STRIP / L::COUNT {
            2 => step_registers::<L, 2>(step),
            4 => step_registers::<L, 4>(step),
            _ => step_registers::<L, 8>(step),
        }
    }
}

/// # Safety
/// The instruction set of `L`, and `N` registers are a strip.
#[inline(always)]
unsafe fn step_registers<L: Lanes, const N: usize>(step: &mut StateStep<'_>) {
    assert!(N * L::COUNT == STRIP);
    assert!(step.state.len() == step.key.len() * STRIP && step.query.len() == step.key.len());
    assert!(step.asked.len() == step.key.len() && step.decays.is_none_or(|decays| decays.len() == step.key.len()));
    let factors = step.coefficients;
    // SAFETY: the caller's promise; every address is within a row of the state, the value or the output, all of STRIP values.
    unsafe {
        let zero = L::splat(0.0);
        let (mut answers, mut reads) = ([zero; N], [zero; N]);
        for ((row, &key), &query) in step.state.chunks_exact(STRIP).zip(step.asked).zip(step.query) {
            let (key, query) = (L::splat(key), L::splat(query));
            for n in 0..N {
                let state = L::load(row.as_ptr().add(n * L::COUNT));
                if step.corrects {
                    answers[n] = L::multiply_add(state, key, answers[n]);
                }
                reads[n] = L::multiply_add(state, query, reads[n]);
            }
        }
        let write = L::splat(factors.write);
        let correction = L::splat(-factors.write * factors.decay * factors.key);
        let (read, overlap, skip) = (factors.decay * factors.query, factors.overlap, factors.skip);
        let mut written = [zero; N];
        for n in 0..N {
            let value = L::load(step.value.as_ptr().add(n * L::COUNT));
            written[n] = L::multiply_add(write, value, L::multiply_add(correction, answers[n], zero));
            let output = L::multiply_add(
                L::splat(overlap),
                written[n],
                L::multiply_add(L::splat(skip), value, zero),
            );
            let output = L::multiply_add(L::splat(read), reads[n], output);
            L::store(step.output.as_mut_ptr().add(n * L::COUNT), output);
        }
        for (index, (row, &key)) in step.state.chunks_exact_mut(STRIP).zip(step.key).enumerate() {
            let decay = L::splat(step.decays.map_or(factors.decay, |decays| decays[index]));
            let key = L::splat(key * factors.key);
            for (n, &written) in written.iter().enumerate() {
                let at = row.as_mut_ptr().add(n * L::COUNT);
                let old = L::multiply_add(L::load(at), decay, zero);
                L::store(at, L::multiply_add(key, written, old));
            }
        }
    }
}
