//! Keys and values of a layer on the device, and attention over them.

use planish_gpu::{Error, Queue};

use smallvec::SmallVec;

use super::{GpuOps, MOST_BUFFERS, lock};
use crate::launch::{self, AttentionBuffer, BLOCK, CopyBlocks, LEAST_TILE_ROWS, MOST_WORDS};
use planish_ops::{Append, Attention, KeyValueSizes, Places, ResidentKeyValues, RopePairs, SequenceStore, Span};

/// Blocks that there is room for at first.
const FIRST_BLOCKS: usize = 4;

/// Keys and values of one layer, of all sequences: a pool of blocks. Memory is taken as it fills.
pub struct GpuKeyValues<Q: Queue> {
    sizes: KeyValueSizes,
    element_bytes: usize,
    blocks: usize,
    buffers: Option<(Q::Buffer, Q::Buffer)>, // (blocks, BLOCK, heads, head_dim), (blocks, BLOCK, heads, value_dim)
    /// The pass whose blocks were copied.
    copied: u64,
}

impl<Q: Queue> GpuKeyValues<Q> {
    pub(super) fn new(sizes: KeyValueSizes, element_bytes: usize) -> GpuKeyValues<Q> {
        GpuKeyValues {
            sizes,
            element_bytes,
            blocks: 0,
            buffers: None,
            copied: 0,
        }
    }

    /// Makes room for so many blocks; what is there stays.
    fn reserve(&mut self, queue: &Q, needed: usize) -> Result<&(Q::Buffer, Q::Buffer), Error> {
        if needed > self.blocks {
            let blocks = room_for(needed).max(FIRST_BLOCKS);
            let (key, value) = self.block_bytes();
            let larger = (queue.allocate(blocks * key)?, queue.allocate(blocks * value)?);
            if let Some((keys, values)) = &self.buffers {
                queue.copy(keys, &larger.0, self.blocks * key)?;
                queue.copy(values, &larger.1, self.blocks * value)?;
            }
            self.buffers = Some(larger);
            self.blocks = blocks;
        }
        match &mut self.buffers {
            Some(buffers) => Ok(buffers),
            // No position at all.
            empty => Ok(empty.insert((queue.allocate(0)?, queue.allocate(0)?))),
        }
    }

    /// Bytes of the keys of a block, and of its values.
    fn block_bytes(&self) -> (usize, usize) {
        let KeyValueSizes {
            heads,
            head_dim,
            value_dim,
            ..
        } = self.sizes;
        let of = |dim: usize| BLOCK * heads * dim * self.element_bytes;
        (of(head_dim), of(value_dim))
    }
}

/// So many blocks or up to half as many more: a power of two, or three quarters of one. It grows seldom, and wastes less than doubling.
fn room_for(needed: usize) -> usize {
    let power = needed.next_power_of_two();
    let less = power / 4 * 3;
    if needed <= less { less } else { power }
}

impl<Q: Queue> ResidentKeyValues for GpuKeyValues<Q> {
    fn position_bytes(&self) -> usize {
        let (key, value) = self.block_bytes();
        (key + value) / BLOCK
    }

    fn held_bytes(&self) -> usize {
        self.blocks * BLOCK * self.position_bytes()
    }
}

/// Which blocks are whose is the same for all layers: [`super::GpuSequences`] knows it.
impl<Q: Queue> SequenceStore for GpuKeyValues<Q> {
    fn fork(&mut self, _from: usize, _to: usize) {}

    fn clear(&mut self, _slot: usize) {}
}

impl<Q: Queue> GpuOps<Q> {
    pub(super) fn run_append(&self, problem: Append<'_, GpuOps<Q>>) -> Result<(), Error> {
        let Append {
            places,
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
        let launch = launch::RopeAndAppend {
            neighbours: rotation
                .as_ref()
                .is_some_and(|rotation| rotation.pairs == RopePairs::Neighbours),
            value: keys.float_type,
            cache: self.cached,
            rows: places.rows() as u32,
            first_row: places.first_row() as u32,
            heads: heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            value_dim: value_dim as u32,
            rotated: rotated as u32,
        }
        .launch();
        key_values.reserve(&self.queue, places.sequences.most_blocks())?;
        self.copy_blocks(&places, key_values);
        let Some((stored_keys, stored_values)) = &key_values.buffers else {
            return Ok(());
        };
        let queries = rotation.as_ref().map(|rotation| &*rotation.queries);
        let angles = rotation.as_ref().map(|rotation| rotation.angles);
        let buffers = [
            self.optional(queries),
            keys.all(),
            values.all(),
            self.optional(angles),
            places.sequences.places(),
            (stored_keys, 0),
            (stored_values, 0),
        ];
        self.run(&launch, &buffers);
        Ok(())
    }

    /// Blocks that a sequence of this pass writes while another has them, once.
    fn copy_blocks(&self, places: &Places<'_, GpuOps<Q>>, key_values: &mut GpuKeyValues<Q>) {
        let (pairs, pass) = places.sequences.copies();
        if key_values.copied == pass {
            return;
        }
        key_values.copied = pass;
        let (key_bytes, value_bytes) = key_values.block_bytes();
        let Some((keys, values)) = &key_values.buffers else {
            return;
        };
        for pairs in pairs.chunks(MOST_WORDS) {
            for (cache, block_bytes) in [(keys, key_bytes), (values, value_bytes)] {
                let launch = CopyBlocks { pairs, block_bytes }.launch();
                self.run(&launch, &[(cache, 0)]);
            }
        }
    }

    pub(super) fn run_attention(&self, problem: &Attention<'_, GpuOps<Q>>) -> Result<(), Error> {
        // Many rows of a sequence have a launch of their own; others share one with their neighbours.
        let is_alone = |span: &Span| span.rows >= LEAST_TILE_ROWS as usize;
        let runs = problem.places.spans.chunk_by(|a, b| !is_alone(a) && !is_alone(b));
        for spans in runs {
            self.run_attention_of(problem, spans)?;
        }
        Ok(())
    }

    fn run_attention_of(&self, problem: &Attention<'_, GpuOps<Q>>, spans: &[Span]) -> Result<(), Error> {
        let Attention {
            places,
            queries,
            heads,
            scale,
            temperature_tuning,
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
        let longest = spans.iter().map(Span::end_position).max().unwrap_or(0);
        let plan = launch::Attention {
            value: queries.float_type,
            cache: self.cached,
            rows: spans.iter().map(|span| span.rows as u32).sum(),
            first_row: spans.first().map_or(0, |span| span.first_row as u32),
            spans: spans.len() as u32,
            longest: longest as u32,
            heads: *heads as u32,
            kv_heads: kv_heads as u32,
            head_dim: head_dim as u32,
            value_dim: value_dim as u32,
            scale: *scale,
            temperature_tuning: *temperature_tuning,
            window: window.map(|window| window as u32),
            softcap: *softcap,
            alibi: alibi.as_ref().map(|alibi| alibi.rule),
            sinks: sinks.is_some(),
        }
        .plan(&self.queue.features());
        let mut scratch = lock(&self.partial);
        let partials = match plan.scratch_bytes {
            0 => &self.nothing,
            bytes => scratch.at_least(&self.queue, bytes)?,
        };
        let bound = |buffer: &AttentionBuffer| match buffer {
            AttentionBuffer::Queries => queries.all(),
            AttentionBuffer::Keys => (keys, 0),
            AttentionBuffer::Values => (values, 0),
            AttentionBuffer::Sinks => self.optional(*sinks),
            AttentionBuffer::Slopes => self.optional(alibi.as_ref().map(|alibi| alibi.slopes)),
            AttentionBuffer::Places => places.sequences.places(),
            AttentionBuffer::Tables => places.sequences.tables(),
            AttentionBuffer::Partials => (partials, 0),
            AttentionBuffer::Output => output.all(),
        };
        for step in &plan.steps {
            let buffers: SmallVec<[_; MOST_BUFFERS]> = step.buffers.iter().map(bound).collect();
            self.run(&step.launch, &buffers);
        }
        Ok(())
    }
}
