//! One row of x: codes go from the matrix through registers into the sums, four rows of weights at once.

use std::ops::Range;

use planish_format::PackedMatrix;

use crate::scratch::WorkerScratch;
use crate::table::Output;

use super::block::{Block, Input, multiply};
use super::floats::Place;
use super::scales::{Part, Scales};
use super::unpack::{Packed, ROWS, signed_offset};

/// Products of rows with the only row of x. SIGNED: as x wants its codes.
///
/// # Safety
/// The machine must have the instructions that x needs, x the columns of the matrix, padded to 16.
#[inline(always)]
pub(super) unsafe fn rows<const BITS: u32, const SIGNED: bool, I: Input>(
    matrix: &PackedMatrix,
    x: I,
    rows: Range<usize>,
    output: &Output,
    scratch: &mut WorkerScratch,
) {
    let group = matrix.packing.group();
    let groups = matrix.cols / group;
    let offset = if SIGNED { signed_offset(BITS) } else { 0 };
    for row in rows.clone().step_by(ROWS) {
        let part = Part {
            rows: row..rows.end,
            groups: 0..groups,
        };
        let block = Block {
            codes: Packed::<BITS, SIGNED>::new(matrix, row, rows.end - 1, 0),
            scales: Scales::load::<ROWS>(matrix, &part, offset, &mut scratch.scales),
            group,
            first: 0,
            groups,
        };
        let place = Place {
            output,
            input_row: 0,
            row,
            rows: rows.end - row,
            add: false,
        };
        // SAFETY: the block has all columns of rows of the matrix, which are those given to this call.
        unsafe {
            let [products] = multiply::<_, I, 1>(&block, x, 0);
            place.store(products);
        }
    }
}
