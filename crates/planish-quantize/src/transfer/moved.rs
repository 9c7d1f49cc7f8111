//! Packed rows on their way: as they are, or with their codes in more bits.

use planish_format::{PackedMatrix, PackedShape, Packing, memory, pack_codes};

use super::{CHUNK_WEIGHTS, Stream};
use crate::Error;

impl Stream<'_> {
    /// The rows of the view, block after block.
    pub(super) fn moved(&mut self, matrix: &PackedMatrix) -> Result<(), Error> {
        let mut blocks = 0..self.view.blocks(matrix.rows);
        blocks.try_for_each(|block| self.parts(&matrix.slice_rows(self.view.block(block))))
    }

    /// As [`Stream::moved`], with the same codes in the bits of `packing`, whose group is the same.
    pub(super) fn widened(&mut self, matrix: &PackedMatrix, packing: Packing) -> Result<(), Error> {
        let chunk_rows = (CHUNK_WEIGHTS / matrix.cols.max(1)).max(1);
        for block in 0..self.view.blocks(matrix.rows) {
            let rows = self.view.block(block);
            for start in rows.clone().step_by(chunk_rows) {
                let rows = start..rows.end.min(start + chunk_rows);
                self.parts(&widened(&matrix.slice_rows(rows), packing)?)?;
            }
        }
        Ok(())
    }
}

fn widened(matrix: &PackedMatrix, packing: Packing) -> Result<PackedMatrix, Error> {
    let shape = PackedShape::new(matrix.rows, matrix.cols, packing, matrix.scale_type)?;
    let mut stream = memory::filled("weights", shape.code_bytes(), 0);
    let mut codes = vec![0; matrix.cols];
    for (row, stream) in stream.chunks_exact_mut(shape.code_row_bytes().max(1)).enumerate() {
        matrix.row_codes(row, &mut codes);
        pack_codes(&codes, packing.bits(), stream);
    }
    let (scales, biases) = (matrix.scales.clone(), matrix.biases.clone());
    Ok(PackedMatrix::new(shape, stream.into(), scales, biases)?)
}
