//! x in the order of the codes that unpack.rs yields.

use planish_format::Packing;

use crate::input::{ExactRow, Int8Row, Shape};
use crate::scalar;

use super::unpack::{chunk_codes, code_of, lane_run, vectors};

/// Whether the kernels of this instruction set take the packing, or leave it to the scalar ones.
pub(super) fn fits(shape: &Shape) -> bool {
    shape.packing.group().is_multiple_of(lane_run(shape.packing.bits()))
}

/// Values of x that share a scale: those that one lane of the registers sees.
pub(super) fn block(packing: Packing, m: usize) -> usize {
    let run = lane_run(packing.bits());
    if packing.group().is_multiple_of(run) {
        run
    } else {
        (scalar::SCALAR.block)(packing, m)
    }
}

/// Position in a chunk to code. Only the first `chunk_codes(bits)` entries are used.
const fn order(bits: u32) -> [u8; 128] {
    let mut table = [0; 128];
    let mut at = 0;
    while at < chunk_codes(bits) {
        table[at] = code_of(bits, at / 32, at % 32) as u8;
        at += 1;
    }
    table
}

/// By bits from 2 on.
static ORDERS: [[u8; 128]; 7] = [order(2), order(3), order(4), order(5), order(6), order(8), order(8)];

fn chunk_order(shape: &Shape) -> &'static [u8] {
    let bits = shape.packing.bits();
    &ORDERS[bits as usize - 2][..32 * vectors(bits)]
}

/// Rounds one row of x.
pub(super) fn int8(x: &[f32], shape: &Shape, row: Int8Row<'_>) {
    // SAFETY: the table of instruction sets offers this function only where the features are there.
    unsafe { round_row(x, shape, row) }
}

#[target_feature(enable = "avx2,fma")]
fn round_row(x: &[f32], shape: &Shape, mut row: Int8Row<'_>) {
    scalar::round_row(x, shape, &mut row);
    if !fits(shape) || shape.packing.bits() == 8 {
        return;
    }
    let order = chunk_order(shape);
    let mut natural = [0; 128];
    for chunk in row.codes[..x.len().next_multiple_of(order.len())].chunks_exact_mut(order.len()) {
        natural[..order.len()].copy_from_slice(chunk);
        for (code, &from) in chunk.iter_mut().zip(order) {
            *code = natural[usize::from(from) % 128];
        }
    }
}

/// Copies one row of x in the order in which lanes.rs takes bytes out of lanes.
pub(super) fn exact(x: &[f32], shape: &Shape, row: ExactRow<'_>) {
    if !fits(shape) {
        return scalar::arrange_exact(x, shape, row);
    }
    let ExactRow { values, sums } = row;
    sums[shape.groups()..].fill(0.0);
    for (sum, values) in sums.iter_mut().zip(x.chunks_exact(shape.packing.group())) {
        *sum = values.iter().sum();
    }
    let order = chunk_order(shape);
    for (chunk, values) in values.chunks_exact_mut(order.len()).enumerate() {
        for (position, value) in values.iter_mut().enumerate() {
            let byte = position / 32 * 32 + position % 8 * 4 + position / 8 % 4;
            *value = x
                .get(chunk * order.len() + usize::from(order[byte]))
                .copied()
                .unwrap_or(0.0);
        }
    }
}
