//! The weights of one dispatch, cut into chunks of rows for the threads.

use std::ops::Range;

use planish_format::Packing;

use super::narrow::Narrow;
use crate::matrix::CpuMatrix;
use crate::table::{InstructionSet, InterleavedKernels, Output};

/// Weights that one dispatch takes at most; longer lists are cut.
pub(super) const MAX_WEIGHTS: usize = 16;
/// A thread takes at least so many bytes of weights (times rows of x) at once.
pub(super) const MIN_CHUNK_BYTES: usize = 16 * 1024;
/// Rows of a chunk are a multiple of this, the height of the tallest tile.
pub(super) const CHUNK_ROWS: usize = 32;

/// The weights of one dispatch and where their products go.
pub(super) struct Parts<'a> {
    pub weights: &'a [&'a CpuMatrix],
    pub outputs: [Output; MAX_WEIGHTS],
    /// Where the products of the only weight go instead.
    pub narrow: Option<Narrow<'a>>,
}

impl<'a> Parts<'a> {
    pub fn new(weights: &'a [&'a CpuMatrix], outputs: &mut [&mut [f32]], m: usize) -> Parts<'a> {
        let output = |part: usize| match weights.get(part) {
            Some(weight) => Output::new(outputs[part], m, weight.rows()),
            None => Output::new(&mut [], 0, 0),
        };
        Parts {
            weights,
            outputs: std::array::from_fn(output),
            narrow: None,
        }
    }

    /// One weight whose products are not f32 in the end, or get a bias.
    pub fn of_one(weights: &'a [&'a CpuMatrix; 1], narrow: Narrow<'a>) -> Parts<'a> {
        Parts {
            weights,
            outputs: std::array::from_fn(|_| Output::new(&mut [], 0, 0)),
            narrow: Some(narrow),
        }
    }

    pub fn packing(&self) -> Option<Packing> {
        self.weights.first().and_then(|weight| packing(weight))
    }

    /// The kernels for these weights as they are arranged and so many rows of x.
    pub fn interleaved_kernels(&self, set: &'static InstructionSet, m: usize) -> Option<&'static InterleavedKernels> {
        let arranged = self.weights.first().is_some_and(|weight| interleaved(weight));
        set.interleaved
            .as_ref()
            .filter(|kernels| arranged && m <= kernels.most_rows)
    }

    /// Rows of a chunk: small enough to share well, large enough to be worth handing over.
    pub fn chunk_rows(&self, threads: usize, m: usize) -> usize {
        let rows: usize = self.weights.iter().map(|weight| weight.rows()).sum();
        let bytes: usize = self.weights.iter().map(|weight| weight.bytes()).sum();
        let row_bytes = (bytes / rows.max(1)).max(1) * m;
        // One row of x is a matter of reading: small chunks, so that all threads finish together.
        let shared = rows.div_ceil(threads * if m == 1 { 8 } else { 4 });
        shared.max(MIN_CHUNK_BYTES / row_bytes).next_multiple_of(CHUNK_ROWS)
    }

    /// Weight and rows of a chunk.
    pub fn locate(&self, mut chunk: usize, chunk_rows: usize) -> (usize, Range<usize>) {
        for (part, weight) in self.weights.iter().enumerate() {
            let chunks = weight.rows().div_ceil(chunk_rows);
            if chunk < chunks {
                return (part, chunk * chunk_rows..((chunk + 1) * chunk_rows).min(weight.rows()));
            }
            chunk -= chunks;
        }
        unreachable!("chunks are counted by the same rule")
    }
}

/// Bits and group of a packed matrix.
pub(super) fn packing(weight: &CpuMatrix) -> Option<Packing> {
    match weight {
        CpuMatrix::Packed(matrix) => Some(matrix.packing),
        CpuMatrix::Interleaved(matrix) => Some(matrix.shape.packing),
        CpuMatrix::Plain(_) => None,
    }
}

/// Whether rows are interleaved.
pub(super) fn interleaved(weight: &CpuMatrix) -> bool {
    matches!(weight, CpuMatrix::Interleaved(_))
}

/// Whether weights share the prepared x.
pub(super) fn alike(left: &CpuMatrix, right: &CpuMatrix) -> bool {
    packing(left) == packing(right) && interleaved(left) == interleaved(right)
}
