//! Causal convolution of every channel on its own: `output[row] = bias + sum over taps of weight[tap] * input[row + tap + 1 - taps]`,
//! then an activation; inputs from before the first row come from `history`, which then holds the last ones.

use planish_ops::Activation;
use smallvec::{SmallVec, smallvec};

use crate::Cpu;
use crate::share::{SharedSlice, share_rows};
use crate::vector::ConvolutionRow;

/// Channels handled together; their history stays in the nearest cache.
const CHUNK: usize = 64;

/// Rows to convolve.
pub struct Convolution<'a> {
    /// (rows, channels)
    pub input: &'a [f32],
    /// Multiplies the input. // (rows, channels)
    pub input_gate: Option<&'a [f32]>,
    /// Oldest input first. // (taps, channels)
    pub weight: &'a [f32],
    /// Added to the sum. // (channels)
    pub bias: Option<&'a [f32]>,
    /// Of the sum.
    pub activation: Option<Activation>,
    /// Multiplies the result. // (rows, channels)
    pub output_gate: Option<&'a [f32]>,
    /// Channels.
    pub channels: usize,
    /// Whether row 0 is the first of its sequence: `history` counts as zero.
    pub begins: bool,
    /// The last inputs, oldest first. // (taps - 1, channels)
    pub history: &'a mut [f32],
    /// (rows, channels)
    pub output: &'a mut [f32],
}

/// Convolves every channel.
pub fn convolve(cpu: &Cpu, problem: Convolution<'_>) {
    let Convolution {
        input,
        input_gate,
        weight,
        bias,
        activation,
        output_gate,
        channels,
        begins,
        history,
        output,
    } = problem;
    let (rows, taps) = (input.len() / channels, weight.len() / channels);
    assert!(taps > 0 && weight.len() == taps * channels && history.len() == (taps - 1) * channels);
    assert!(input.len() == rows * channels && output.len() == input.len());
    assert!(bias.is_none_or(|bias| bias.len() == channels));
    assert!(input_gate.is_none_or(|gate| gate.len() == input.len()));
    assert!(output_gate.is_none_or(|gate| gate.len() == input.len()));
    let functions = cpu.vector();
    let (history, output) = (SharedSlice::new(history), SharedSlice::new(output));
    share_rows(cpu.pool(), channels.div_ceil(CHUNK), CHUNK * rows * taps, |share| {
        let mut window: SmallVec<[f32; 4 * CHUNK]> = smallvec![0.0; taps * CHUNK];
        for chunk in share {
            let (from, to) = (chunk * CHUNK, channels.min((chunk + 1) * CHUNK));
            let width = to - from;
            let window = &mut window[..taps * width];
            for tap in 1..taps {
                let range = (tap - 1) * channels + from..(tap - 1) * channels + to;
                // SAFETY: every channel belongs to one share.
                let before = unsafe { history.range(range) };
                let inside = &mut window[tap * width..(tap + 1) * width];
                match begins {
                    true => inside.fill(0.0),
                    false => inside.copy_from_slice(before),
                }
            }
            for row in 0..rows {
                window.copy_within(width.., 0);
                let range = row * channels + from..row * channels + to;
                // SAFETY: every channel belongs to one share; the functions are those this machine supports.
                unsafe {
                    (functions.convolve_row)(&mut ConvolutionRow {
                        input: &input[range.clone()],
                        input_gate: input_gate.map(|gate| &gate[range.clone()]),
                        weight: &weight[from..],
                        stride: channels,
                        bias: bias.map(|bias| &bias[from..to]),
                        activation,
                        output_gate: output_gate.map(|gate| &gate[range.clone()]),
                        window,
                        output: output.range(range),
                    });
                }
            }
            for tap in 1..taps {
                let range = (tap - 1) * channels + from..(tap - 1) * channels + to;
                // SAFETY: every channel belongs to one share.
                let after = unsafe { history.range(range) };
                after.copy_from_slice(&window[tap * width..(tap + 1) * width]);
            }
        }
    });
}
