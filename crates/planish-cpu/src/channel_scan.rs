//! The scan of Mamba 1, chunks of channels shared out among the threads.

use planish_ops::{ChannelScan, Shape};
use smallvec::{SmallVec, smallvec};

use crate::share::{SharedSlice, share_rows};
use crate::vector::{SCAN_CHANNELS, ScanRow};
use crate::{Cpu, CpuOps};

/// Values of a key for whose state no memory is taken.
const FEW: usize = 16;

/// Takes in every row.
pub(crate) fn scan_channels(cpu: &Cpu, problem: ChannelScan<'_, CpuOps>) {
    let ChannelScan {
        places,
        values,
        steps,
        keys,
        queries,
        step_bias,
        rates,
        skip,
        state,
        output,
    } = problem;
    let (channels, key_dim, spans) = (values.cols(), keys.cols(), places.spans);
    let [values, steps, keys, queries] = [values, steps, keys, queries].map(|tensor| tensor.values());
    let [step_bias, rates, skip] = [step_bias, rates, skip].map(|tensor| tensor.values());
    let chunks = channels.div_ceil(SCAN_CHANNELS);
    let functions = cpu.vector();
    let (state, output) = (SharedSlice::new(state.all_mut()), SharedSlice::new(output.all_mut()));
    let rows_of_span = places.rows().div_ceil(spans.len().max(1));
    let work = 8 * rows_of_span * key_dim * SCAN_CHANNELS;
    share_rows(cpu.pool(), spans.len() * chunks, work, |share| {
        let mut states: SmallVec<[f32; FEW * SCAN_CHANNELS]> = smallvec![0.0; key_dim * SCAN_CHANNELS];
        for index in share {
            let (span, chunk) = (&spans[index / chunks], index % chunks);
            let (from, to) = (chunk * SCAN_CHANNELS, channels.min((chunk + 1) * SCAN_CHANNELS));
            let states = &mut states[..key_dim * (to - from)];
            let kept = |number: usize| {
                let start = (span.slot * key_dim + number) * channels;
                // SAFETY: every channel of a sequence belongs to one share.
                unsafe { state.range(start + from..start + to) }
            };
            for (number, inside) in states.chunks_exact_mut(to - from).enumerate() {
                match span.first_position {
                    0 => inside.fill(0.0),
                    _ => inside.copy_from_slice(kept(number)),
                }
            }
            for row in span.first_row..span.end_row() {
                let range = row * channels + from..row * channels + to;
                let of_row = row * key_dim..(row + 1) * key_dim;
                // SAFETY: every channel belongs to one share; the functions are those this machine supports.
                unsafe {
                    (functions.scan_row)(&mut ScanRow {
                        values: &values[range.clone()],
                        steps: &steps[range.clone()],
                        step_bias: &step_bias[from..to],
                        skip: &skip[from..to],
                        key: &keys[of_row.clone()],
                        query: &queries[of_row],
                        rates: &rates[from..],
                        stride: channels,
                        state: states,
                        output: output.range(range),
                    });
                }
            }
            for (number, inside) in states.chunks_exact(to - from).enumerate() {
                kept(number).copy_from_slice(inside);
            }
        }
    });
}
