//! Packing for files: plain values come from the host, are packed by search, and go back as codes, scales and biases.

use std::error::Error as StdError;
use std::fmt;

use bytes::Bytes;
use planish_format::{FloatMatrix, FloatType, PackedMatrix, PackedShape, Packing, Searcher};
use planish_gpu::{Error, Queue};

use super::{GpuOps, Scratch, lock};
use crate::launch::SearchGroups;

/// Offsets of buffers that kernels take are multiples of this.
const ALIGNMENT: usize = 16;

/// Room for one matrix.
pub(super) struct SearchRoom<Q: Queue> {
    plain: Scratch<Q>,
    importance: Scratch<Q>,
    /// Codes, scales and biases.
    packed: Scratch<Q>,
}

impl<Q: Queue> SearchRoom<Q> {
    pub(super) fn new() -> SearchRoom<Q> {
        SearchRoom {
            plain: Scratch::new(),
            importance: Scratch::new(),
            packed: Scratch::new(),
        }
    }
}

impl<Q: Queue> fmt::Debug for GpuOps<Q> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "GpuOps({})", self.queue.device())
    }
}

impl<Q: Queue> Searcher for GpuOps<Q> {
    fn search(
        &self,
        source: FloatMatrix<'_>,
        packing: Packing,
        scale_type: FloatType,
        importance: Option<&[f32]>,
    ) -> Result<Option<PackedMatrix>, Box<dyn StdError + Send + Sync>> {
        let shape = PackedShape::new(source.rows, source.cols, packing, scale_type)?;
        let groups = u32::try_from(source.rows * shape.groups());
        if packing.group() > SearchGroups::MOST_GROUP || source.data.is_empty() || groups.is_err() {
            return Ok(None);
        }
        let problem = SearchGroups {
            packing,
            value: source.float_type,
            scale: scale_type,
            rows: source.rows as u32,
            cols: source.cols as u32,
        };
        let alike = vec![1.0; source.cols];
        let parts = self.run_search(&problem, source.data, importance.unwrap_or(&alike), shape)?;
        let [codes, scales, biases] = parts;
        Ok(Some(PackedMatrix::new(shape, codes, scales, biases)?))
    }
}

impl<Q: Queue> GpuOps<Q> {
    fn run_search(
        &self,
        problem: &SearchGroups,
        plain: &[u8],
        importance: &[f32],
        shape: PackedShape,
    ) -> Result<[Bytes; 3], Error> {
        let sizes = [shape.code_bytes(), shape.scale_bytes(), shape.scale_bytes()];
        let scales_at = sizes[0].next_multiple_of(ALIGNMENT);
        let starts = [0, scales_at, scales_at + sizes[1].next_multiple_of(ALIGNMENT)];
        let mut found = vec![0; starts[2] + sizes[2]];
        let mut room = lock(&self.searched);
        let SearchRoom {
            plain: plain_room,
            importance: importance_room,
            packed,
        } = &mut *room;
        let values = plain_room.at_least(&self.queue, plain.len())?;
        self.queue.upload(plain, values, 0)?;
        let columns = importance_room.at_least(&self.queue, size_of_val(importance))?;
        self.queue.upload(bytemuck::cast_slice(importance), columns, 0)?;
        let packed = packed.at_least(&self.queue, found.len())?;
        let [codes, scales, biases] = starts.map(|start| (packed, start));
        self.try_run(
            &problem.launch(),
            &[(values, 0), (columns, 0), codes, scales, biases],
            false,
        )?;
        self.queue.download(packed, 0, &mut found)?;
        let found = Bytes::from(found);
        let part = |index: usize| found.slice(starts[index]..starts[index] + sizes[index]);
        Ok([part(0), part(1), part(2)])
    }
}
