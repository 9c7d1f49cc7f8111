//! Packing while loading: plain values go to the device as they are and become codes, scales and biases there. At most one tensor of
//! plain values, or one stack of small ones, is there at a time.

use planish_format::{PackedShape, Packing};
use planish_gpu::{Error, Queue};

use super::stack::GpuStack;
use super::tensor::Stored;
use super::{GpuOps, GpuWeight};
use crate::launch::{NonFinite, Quantize, WeightKind};
use planish_ops::ToPack;

/// Offsets of buffers that kernels take are multiples of this.
const ALIGNMENT: usize = 16;

impl<Q: Queue> GpuOps<Q> {
    /// Packed as in a checkpoint.
    pub(super) fn pack_one(&self, source: &ToPack) -> Result<Option<GpuWeight<Q>>, Error> {
        let (rows, cols) = (source.plain.rows, source.plain.cols);
        let Some((stored, bytes)) = self.pack_all(std::slice::from_ref(source))? else {
            return Ok(None);
        };
        Ok(Some(GpuWeight::of(rows, cols, bytes, stored)))
    }

    pub(super) fn pack_matrices(&self, sources: &[ToPack]) -> Result<Option<GpuStack<Q>>, Error> {
        let Some(first) = sources.first() else {
            return Ok(None);
        };
        let shape = |source: &ToPack| (source.plain.rows, source.plain.cols);
        assert!(sources.iter().all(|source| shape(source) == shape(first)));
        let Some((stored, bytes)) = self.pack_all(sources)? else {
            return Ok(None);
        };
        let (rows, cols) = shape(first);
        Ok(Some(GpuStack::of((sources.len(), rows, cols), bytes, stored)))
    }

    /// Packs matrices of one kind behind one another. `None` where they are not of one kind, or not finite.
    fn pack_all(&self, sources: &[ToPack]) -> Result<Option<(Stored<Q>, usize)>, Error> {
        let first = &sources[0];
        let kind = |source: &ToPack| {
            (
                source.packing,
                source.encoder,
                source.scale_type,
                source.plain.float_type,
            )
        };
        let (rows, cols) = (first.plain.rows, first.plain.cols);
        let shape = PackedShape::new(rows, cols, first.packing, first.scale_type);
        let (Ok(shape), true) = (shape, sources.iter().all(|source| kind(source) == kind(first))) else {
            return Ok(None);
        };
        let sizes = [shape.code_bytes(), shape.scale_bytes(), shape.scale_bytes()];
        let allocate = |bytes: usize| self.queue.allocate(sources.len() * bytes);
        let parts = [allocate(sizes[0])?, allocate(sizes[1])?, allocate(sizes[2])?];
        // Matrices whose parts begin where kernels can write go one by one, others together.
        let aligned = sizes.iter().all(|bytes| bytes.is_multiple_of(ALIGNMENT));
        let together = if aligned { 1 } else { sources.len() };
        for (index, sources) in sources.chunks(together).enumerate() {
            let offset = |part: usize| (&parts[part], index * sizes[part]);
            if !self.pack_run(sources, [offset(0), offset(1), offset(2)])? {
                return Ok(None);
            }
        }
        let kind = WeightKind {
            packing: Some(first.packing),
            float_type: first.scale_type,
        };
        let stored = Stored::new(kind, parts.into_iter().map(|buffer| (buffer, 0)).collect());
        Ok(Some((stored, sources.len() * sizes.iter().sum::<usize>())))
    }

    /// Packs some matrices as one; whether all their values are finite, or need not be.
    fn pack_run(&self, sources: &[ToPack], [codes, scales, biases]: [(&Q::Buffer, usize); 3]) -> Result<bool, Error> {
        let ToPack {
            plain,
            packing,
            encoder,
            scale_type,
            allow_non_finite,
        } = &sources[0];
        let (packing, scale): (Packing, _) = (*packing, *scale_type);
        let (values, offset) = self.place_values(sources)?;
        let rows = sources.len() * plain.rows;
        let quantize = Quantize {
            packing,
            encoder: *encoder,
            value: plain.float_type,
            scale,
            rows: rows as u32,
            cols: plain.cols as u32,
        };
        if !allow_non_finite {
            let search = NonFinite(quantize);
            let found = self.queue.allocate(4 * NonFinite::PARTS as usize)?;
            self.try_run(&search.launch(), &[(&values, offset), (&found, 0)], false)?;
            let mut parts = [0u32; NonFinite::PARTS as usize];
            self.queue.download(&found, 0, bytemuck::cast_slice_mut(&mut parts))?;
            if parts.iter().any(|&part| part != 0) {
                return Ok(false);
            }
        }
        let buffers = [(&values, offset), codes, scales, biases];
        self.try_run(&quantize.launch(), &buffers, false)?;
        Ok(true)
    }

    /// Plain values behind one another.
    fn place_values(&self, sources: &[ToPack]) -> Result<(Q::Buffer, usize), Error> {
        if let [one] = sources {
            return self.queue.place(&one.plain.data);
        }
        let bytes = sources.iter().map(|source| source.plain.data.len()).sum();
        let buffer = self.queue.allocate(bytes)?;
        let mut offset = 0;
        for source in sources {
            self.queue.upload(&source.plain.data, &buffer, offset)?;
            offset += source.plain.data.len();
        }
        Ok((buffer, 0))
    }
}
