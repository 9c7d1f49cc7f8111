//! Keys and values of a layer on the device, and attention over them.

use planish_gpu::{Error, Queue};

use super::{GpuOps, lock};
use crate::launch;
use planish_ops::{Append, Attention, KeyValueSizes, ResidentKeyValues, RopePairs};

/// Positions that there is room for at first; room doubles from there.
const FIRST_POSITIONS: usize = 256;

/// Keys and values of one layer. Memory is taken as it fills.
pub struct GpuKeyValues<Q: Queue> {
    sizes: KeyValueSizes,
    element_bytes: usize,
    positions: usize,
    buffers: Option<(Q::Buffer, Q::Buffer)>, // (positions, heads, head_dim), (positions, heads, value_dim)
}

impl<Q: Queue> GpuKeyValues<Q> {
    pub(super) fn new(sizes: KeyValueSizes, element_bytes: usize) -> GpuKeyValues<Q> {
        GpuKeyValues {
            sizes,
            element_bytes,
            positions: 0,
            buffers: None,
        }
    }

    /// Makes room for so many positions; the first `kept` stay.
    fn reserve(
        &mut self,
        queue: &Q,
        needed: usize,
        kept: usize,
        value_bytes: usize,
    ) -> Result<&(Q::Buffer, Q::Buffer), Error> {
        if needed > self.positions {
            let positions = needed.next_power_of_two().max(FIRST_POSITIONS);
            let (key, value) = self.row_bytes(value_bytes);
            let larger = (queue.allocate(positions * key)?, queue.allocate(positions * value)?);
            if let Some((keys, values)) = &self.buffers {
                queue.copy(keys, &larger.0, kept * key)?;
                queue.copy(values, &larger.1, kept * value)?;
            }
            self.buffers = Some(larger);
            self.positions = positions;
        }
        match &mut self.buffers {
            Some(buffers) => Ok(buffers),
            // No position at all.
            empty => Ok(empty.insert((queue.allocate(0)?, queue.allocate(0)?))),
        }
    }

    /// Bytes of one position's keys, and of its values.
    fn row_bytes(&self, value_bytes: usize) -> (usize, usize) {
        let KeyValueSizes {
            heads,
            head_dim,
            value_dim,
            ..
        } = self.sizes;
        (heads * head_dim * value_bytes, heads * value_dim * value_bytes)
    }
}

impl<Q: Queue> ResidentKeyValues for GpuKeyValues<Q> {
    fn position_bytes(&self) -> usize {
        let (key, value) = self.row_bytes(self.element_bytes);
        key + value
    }
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_append(&self, problem: Append<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Append {
            rows,
            first_position,
            rotation,
            keys,
            values,
            key_values,
        } = problem;
        let KeyValueSizes {
            heads: kv_heads,
            head_dim,
            value_dim,
            ..
        } = key_values.sizes;
        let rotated = rotation.as_ref().map_or(0, |rotation| rotation.angles.cols);
        let heads = rotation.as_ref().map_or(0, |rotation| rotation.queries.cols / head_dim);
        let launch = launch::Place {
            neighbours: rotation
                .as_ref()
                .is_some_and(|rotation| rotation.pairs == RopePairs::Neighbours),
            value: keys.float_type,
            cache: self.cached,
            rows: rows as u32,
            first_position: first_position as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            value_dim: value_dim as u32,
            rotated: rotated as u32,
        }
        .launch();
        let bytes = self.cached.size_bytes();
        let (stored_keys, stored_values) =
            key_values.reserve(&self.queue, first_position + rows, first_position, bytes)?;
        let queries = rotation.as_ref().map(|rotation| &*rotation.queries);
        let angles = rotation.as_ref().map(|rotation| rotation.angles);
        let buffers = [
            self.optional(queries),
            keys.all(),
            values.all(),
            self.optional(angles),
            (stored_keys, 0),
            (stored_values, 0),
        ];
        self.run(&launch, &buffers);
        Ok(())
    }

    pub(super) fn run_attention(&self, problem: &Attention<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Attention {
            rows,
            first_position,
            queries,
            heads,
            scale,
            window,
            softcap,
            alibi,
            sinks,
            key_values,
            output,
        } = problem;
        let Some((keys, values)) = &key_values.buffers else {
            return Ok(());
        };
        let KeyValueSizes {
            heads: kv_heads,
            head_dim,
            value_dim,
            ..
        } = key_values.sizes;
        let kernel = launch::Attention {
            value: queries.float_type,
            cache: self.cached,
            rows: *rows as u32,
            first_position: *first_position as u32,
            heads: *heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            value_dim: value_dim as u32,
            scale: *scale,
            window: window.map(|window| window as u32),
            softcap: *softcap,
            alibi_factor: alibi.as_ref().map(|alibi| alibi.factor),
            sinks: sinks.is_some(),
        };
        let features = self.queue.features();
        let tensor = launch::TensorAttention::new(kernel).filter(|_| features.tensor_cores);
        let tiles = launch::TileAttention::new(kernel).filter(|_| features.simdgroup_matrices);
        let (launch, merge, scratch_bytes) = match tensor {
            Some(tensor) => (tensor.launch(), tensor.merge(), tensor.scratch_bytes()),
            None => (kernel.launch(), kernel.merge(), kernel.scratch_bytes()),
        };
        let sinks = self.optional(*sinks);
        let slopes = self.optional(alibi.as_ref().map(|alibi| alibi.slopes));
        if let (None, Some(tiles)) = (&tensor, tiles) {
            let buffers = [queries.all(), (keys, 0), (values, 0), sinks, slopes, output.all()];
            self.run(&tiles.launch(), &buffers);
            return Ok(());
        }
        let mut scratch = lock(&self.partial);
        let partials = (scratch.at_least(&self.queue, scratch_bytes)?, 0);
        let buffers = [
            queries.all(),
            (keys, 0),
            (values, 0),
            sinks,
            slopes,
            partials,
            output.all(),
        ];
        self.run(&launch, &buffers);
        if let Some(merge) = merge {
            self.run(&merge, &[partials, sinks, output.all()]);
        }
        Ok(())
    }
}
