//! Causal convolution of every channel on its own: `output[row] = bias + sum over taps of weight[tap] * input[row + tap + 1 - taps]`,
//! then an activation; inputs from before the first row of a span come from its history, which then holds the last ones.

use planish_ops::{Convolution, Shape};
use smallvec::{SmallVec, smallvec};

use crate::share::{SharedSlice, share_rows};
use crate::vector::ConvolutionRow;
use crate::{Cpu, CpuOps, CpuTensor};

/// Channels handled together; their history stays in the nearest cache.
const CHUNK: usize = 64;

/// Convolves every channel.
pub(crate) fn convolve(cpu: &Cpu, problem: Convolution<'_, CpuOps>) {
    let Convolution {
        places,
        input,
        input_gate,
        weight,
        bias,
        activation,
        output_gate,
        history,
        output,
    } = problem;
    let (channels, spans) = (input.cols(), places.spans);
    let (weight, input) = (weight.values(), input.values());
    let [input_gate, output_gate, bias] = [input_gate, output_gate, bias].map(|of| of.map(CpuTensor::values));
    let (taps, chunks) = (weight.len() / channels, channels.div_ceil(CHUNK));
    let functions = cpu.vector();
    let (history, output) = (SharedSlice::new(history.all_mut()), SharedSlice::new(output.all_mut()));
    let rows_of_span = places.rows().div_ceil(spans.len().max(1));
    share_rows(cpu.pool(), spans.len() * chunks, CHUNK * rows_of_span * taps, |share| {
        let mut window: SmallVec<[f32; 4 * CHUNK]> = smallvec![0.0; taps * CHUNK];
        for index in share {
            let (span, chunk) = (&spans[index / chunks], index % chunks);
            let (from, to) = (chunk * CHUNK, channels.min((chunk + 1) * CHUNK));
            let width = to - from;
            let window = &mut window[..taps * width];
            let kept = |tap: usize| {
                let start = (span.slot * (taps - 1) + tap - 1) * channels;
                // SAFETY: every channel of a sequence belongs to one share.
                unsafe { history.range(start + from..start + to) }
            };
            for tap in 1..taps {
                let inside = &mut window[tap * width..(tap + 1) * width];
                match span.first_position {
                    0 => inside.fill(0.0),
                    _ => inside.copy_from_slice(kept(tap)),
                }
            }
            for row in span.first_row..span.end_row() {
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
                kept(tap).copy_from_slice(&window[tap * width..(tap + 1) * width]);
            }
        }
    });
}
