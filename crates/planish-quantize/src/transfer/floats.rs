//! Codes that are floats, of MLX's modes: packed here, or moved in the blocks of gpt-oss.

use planish_checkpoint::{Dtype, Planned, Weight};
use planish_format::{FloatMode, FloatType};

use super::{CHUNK_WEIGHTS, Stream, Transfer, part_names};
use crate::pack::Floats;
use crate::plan::OutputTensor;
use crate::{Error, blocks};

impl Transfer<'_> {
    /// Codes and scales of a tensor.
    pub(super) fn planned_floats(&self, tensor: &OutputTensor, mode: FloatMode) -> Vec<Planned> {
        let (cols, leading) = tensor
            .shape
            .split_last()
            .map_or((1, &[][..]), |(cols, leading)| (*cols, leading));
        let [codes, scales, _] = part_names(&tensor.name, &self.dialect);
        let part = |name: String, dtype: Dtype, last: usize| Planned {
            name,
            dtype,
            shape: [leading, &[last]].concat(),
        };
        vec![
            part(codes, Dtype::U32, cols * mode.bits() as usize / 32),
            part(scales, Dtype::U8, cols / mode.group()),
        ]
    }
}

impl Stream<'_> {
    pub(super) fn pack_floats(
        &mut self,
        weight: &Weight,
        mode: FloatMode,
        float_type: FloatType,
        report: &mut dyn FnMut(f64),
    ) -> Result<(), Error> {
        let floats = Floats::new(&self.entry.name, weight, Some(float_type))?.viewed(self.view);
        let floats = floats.clamped(self.output.clamp);
        let [codes, scales, _] = part_names(self.name, &self.transfer.dialect);
        for rows in floats.chunks(CHUNK_WEIGHTS) {
            report(rows.start as f64 / floats.rows as f64);
            let packed = floats.pack_floats(rows, mode)?;
            self.append(&codes, &packed.codes)?;
            self.append(&scales, &packed.scales)?;
        }
        Ok(())
    }

    /// Rows of stored blocks, of which the view takes columns: as floats the stack is stored the other way round.
    pub(super) fn blocks(&mut self) -> Result<(), Error> {
        let [codes, scales, _] = part_names(self.name, &self.transfer.dialect);
        let (cols, view) = (self.entry.rows_cols().1, self.view);
        for (part, name) in blocks::PARTS.iter().zip([codes, scales]) {
            let tensor = self.transfer.checkpoint.tensor(&format!("{}{part}", self.entry.name))?;
            let row_bytes = tensor.data.len() / (view.blocks(self.entry.rows_cols().0) * cols).max(1);
            for expert in tensor.data.chunks((row_bytes * cols).max(1)) {
                let rows = expert
                    .chunks(row_bytes.max(1))
                    .skip(view.first_col)
                    .step_by(view.col_step);
                let rows: Vec<&[u8]> = rows.collect();
                self.append(&name, &rows.concat())?;
            }
        }
        Ok(())
    }
}
