//! The keys and values that one attention layer remembers, laid out for the kernels of `attention.rs`.
//!
//! Positions come in blocks of 64. In a block keys are transposed, (heads, head_dim, 64), so that a product of queries
//! and keys runs along positions; values are (heads, 64, width) with value_dim padded to `width`, a multiple of 16.
//! Blocks are allocated as positions fill, and freed once no row can see them again.

use std::sync::Arc;

use half::f16;
use planish_ops::{CacheType, REWIND, ResidentKeyValues, SequenceStore, Span};

use crate::Cpu;
use crate::input::{largest_magnitude, step_of};
use planish_format::memory::OutOfMemory;

use crate::memory;
use crate::piece::{Piece, WHAT};
use crate::share::{SharedSlice, share_rows};
use crate::vector::{ProductElement, VectorFunctions};

/// Positions in a block.
pub const BLOCK: usize = 64;

/// What does not change over the life of a layer's cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyValueShape {
    /// Heads of keys and of values.
    pub heads: usize,
    /// Values in a head of keys.
    pub head_dim: usize,
    /// Values in a head of values.
    pub value_dim: usize,
    /// Rows see this many positions, their own included; `None` is all.
    pub window: Option<usize>,
    /// How they are stored.
    pub cache: CacheType,
}

impl KeyValueShape {
    /// Values of a head with padding.
    pub(crate) fn width(&self) -> usize {
        self.value_dim.next_multiple_of(16)
    }
}

/// Empty where positions were freed.
pub(crate) struct Block<T> {
    pub(crate) keys: Piece<T>,   // (heads, head_dim, BLOCK)
    pub(crate) values: Piece<T>, // (heads, BLOCK, width)
    key_scales: Box<[f32]>,      // (heads, BLOCK), none where T is not scaled
    value_scales: Box<[f32]>,    // likewise
}

impl<T: ProductElement> Block<T> {
    fn freed() -> Block<T> {
        Block {
            keys: Piece::default(),
            values: Piece::default(),
            key_scales: Box::default(),
            value_scales: Box::default(),
        }
    }

    fn zeros(shape: KeyValueShape) -> Result<Block<T>, OutOfMemory> {
        // Blocks behind a window come and go.
        let zeros = |len: usize| match shape.window {
            Some(_) => Ok(Piece::Own(memory::zeros(WHAT, len)?.into_boxed_slice())),
            None => Piece::zeros(len),
        };
        let scales = || {
            let len = if T::SCALED { shape.heads * BLOCK } else { 0 };
            Ok(memory::zeros(WHAT, len)?.into_boxed_slice())
        };
        Ok(Block {
            keys: zeros(shape.heads * shape.head_dim * BLOCK)?,
            values: zeros(shape.heads * BLOCK * shape.width())?,
            key_scales: scales()?,
            value_scales: scales()?,
        })
    }

    /// Takes over what another block of the same layer holds.
    fn copy_from(&mut self, other: &Block<T>) {
        self.keys.copy_from_slice(&other.keys);
        self.values.copy_from_slice(&other.values);
        self.key_scales.copy_from_slice(&other.key_scales);
        self.value_scales.copy_from_slice(&other.value_scales);
    }

    /// Scales of a head's keys. // (BLOCK), none where T is not scaled
    pub(crate) fn key_scales(&self, head: usize) -> &[f32] {
        self.key_scales.chunks_exact(BLOCK).nth(head).unwrap_or(&[])
    }

    /// Scales of a head's values. // (BLOCK), none where T is not scaled
    pub(crate) fn value_scales(&self, head: usize) -> &[f32] {
        self.value_scales.chunks_exact(BLOCK).nth(head).unwrap_or(&[])
    }

    fn bytes(&self) -> usize {
        let scales = size_of_val(&*self.key_scales) + size_of_val(&*self.value_scales);
        size_of_val(&*self.keys) + size_of_val(&*self.values) + scales
    }
}

/// The blocks of all sequences. A block of several is copied before one of them writes to it.
pub(crate) struct Sequences<T> {
    slots: Vec<Vec<Arc<Block<T>>>>, // (slots, blocks)
    unused: Vec<Arc<Block<T>>>,     // values whatever; each has no other owner
    freed: Arc<Block<T>>,           // stands, without memory, where no row sees positions any more
}

impl<T: ProductElement> Sequences<T> {
    fn new() -> Sequences<T> {
        Sequences {
            slots: Vec::new(),
            unused: Vec::new(),
            freed: Arc::new(Block::freed()),
        }
    }

    /// In the order of positions.
    pub(crate) fn blocks(&self, slot: usize) -> &[Arc<Block<T>>] {
        self.slots.get(slot).map_or(&[], |blocks| blocks)
    }

    /// Memory of all blocks, of those that several sequences share a part for each.
    fn held_bytes(&self) -> usize {
        let part = |block: &Arc<Block<T>>| block.bytes() / Arc::strong_count(block);
        self.slots.iter().flatten().map(part).sum()
    }

    fn slot(&mut self, slot: usize) -> &mut Vec<Arc<Block<T>>> {
        if self.slots.len() <= slot {
            self.slots.resize_with(slot + 1, Vec::new);
        }
        &mut self.slots[slot]
    }

    /// Keeps the memory of a block that has no other owner.
    fn release(&mut self, mut block: Arc<Block<T>>) {
        if Arc::get_mut(&mut block).is_some() {
            self.unused.push(block);
        }
    }

    fn clear(&mut self, slot: usize) {
        for block in std::mem::take(self.slot(slot)) {
            self.release(block);
        }
    }

    fn fork(&mut self, from: usize, to: usize) {
        let blocks = self.slot(from).clone();
        self.clear(to);
        *self.slot(to) = blocks;
    }

    /// Makes room for the rows of a span, in blocks that its sequence alone has. Where memory ends on the way, the blocks before the
    /// span are as they were.
    fn reserve(&mut self, shape: KeyValueShape, span: &Span) -> Result<(), OutOfMemory> {
        let (first, needed) = (span.first_position / BLOCK, span.end_position().div_ceil(BLOCK));
        while self.slot(span.slot).len() > needed {
            let block = self.slot(span.slot).pop().expect("longer than needed");
            self.release(block);
        }
        let freed = &self.freed;
        self.slots[span.slot].resize_with(needed, || Arc::clone(freed));
        for index in first..needed {
            let block = &mut self.slots[span.slot][index];
            if Arc::get_mut(block).is_some() {
                continue;
            }
            let mut own = match self.unused.pop() {
                Some(block) => block,
                None => Arc::new(Block::zeros(shape)?),
            };
            let block = &mut self.slots[span.slot][index];
            if index * BLOCK < span.first_position {
                exclusive_block(&mut own).copy_from(block);
            }
            *block = own;
        }
        Ok(())
    }

    /// Frees the blocks that no row from the span's first on sees, nor one that the sequence is taken back to.
    fn free_unseen(&mut self, window: usize, span: &Span) {
        // From the end: those before the first freed one were freed earlier.
        let unseen = (span.first_position + 1).saturating_sub(window.saturating_add(REWIND)) / BLOCK;
        let stored = |block: &&mut Arc<Block<T>>| !block.keys.is_empty();
        let Sequences { slots, unused, freed } = self;
        for block in slots[span.slot][..unseen].iter_mut().rev().take_while(stored) {
            let mut block = std::mem::replace(block, Arc::clone(freed));
            if Arc::get_mut(&mut block).is_some() {
                unused.push(block);
            }
        }
    }
}

fn exclusive_block<T>(block: &mut Arc<Block<T>>) -> &mut Block<T> {
    Arc::get_mut(block).expect("reserved for one sequence")
}

pub(crate) enum Stored {
    Float32(Sequences<f32>),
    Float16(Sequences<f16>),
    Int8(Sequences<i8>),
}

/// Keys and values of one layer, of all sequences.
pub struct KeyValues {
    shape: KeyValueShape,
    stored: Stored,
}

impl KeyValues {
    /// Nothing remembered yet.
    pub fn new(shape: KeyValueShape) -> KeyValues {
        let stored = match shape.cache {
            CacheType::Float32 => Stored::Float32(Sequences::new()),
            CacheType::Float16 => Stored::Float16(Sequences::new()),
            CacheType::Int8 => Stored::Int8(Sequences::new()),
        };
        KeyValues { shape, stored }
    }

    /// Heads, sizes and element.
    pub fn shape(&self) -> KeyValueShape {
        self.shape
    }

    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// Memory that the blocks of a sequence take, shared ones included.
    pub fn bytes(&self, slot: usize) -> usize {
        fn of<T: ProductElement>(blocks: &[Arc<Block<T>>]) -> usize {
            blocks.iter().map(|block| block.bytes()).sum()
        }
        match &self.stored {
            Stored::Float32(sequences) => of(sequences.blocks(slot)),
            Stored::Float16(sequences) => of(sequences.blocks(slot)),
            Stored::Int8(sequences) => of(sequences.blocks(slot)),
        }
    }

    /// Stores the rows of spans: `keys` are (rows, heads, head_dim), `values` (rows, heads, value_dim).
    ///
    /// # Errors
    /// The memory ran out: nothing is stored.
    pub fn append(&mut self, cpu: &Cpu, spans: &[Span], keys: &[f32], values: &[f32]) -> Result<(), OutOfMemory> {
        match &mut self.stored {
            Stored::Float32(sequences) => append(cpu, self.shape, sequences, spans, keys, values),
            Stored::Float16(sequences) => append(cpu, self.shape, sequences, spans, keys, values),
            Stored::Int8(sequences) => append(cpu, self.shape, sequences, spans, keys, values),
        }
    }
}

impl ResidentKeyValues for KeyValues {
    fn held_bytes(&self) -> usize {
        match &self.stored {
            Stored::Float32(sequences) => sequences.held_bytes(),
            Stored::Float16(sequences) => sequences.held_bytes(),
            Stored::Int8(sequences) => sequences.held_bytes(),
        }
    }

    fn position_bytes(&self) -> usize {
        let values = self.shape.heads * (self.shape.head_dim + self.shape.value_dim);
        match self.shape.cache {
            CacheType::Float32 => values * size_of::<f32>(),
            CacheType::Float16 => values * size_of::<f16>(),
            CacheType::Int8 => values + 2 * self.shape.heads * size_of::<f32>(),
        }
    }
}

impl SequenceStore for KeyValues {
    fn fork(&mut self, from: usize, to: usize) {
        match &mut self.stored {
            Stored::Float32(sequences) => sequences.fork(from, to),
            Stored::Float16(sequences) => sequences.fork(from, to),
            Stored::Int8(sequences) => sequences.fork(from, to),
        }
    }

    fn clear(&mut self, slot: usize) {
        match &mut self.stored {
            Stored::Float32(sequences) => sequences.clear(slot),
            Stored::Float16(sequences) => sequences.clear(slot),
            Stored::Int8(sequences) => sequences.clear(slot),
        }
    }
}

/// Values of which storing one takes as long as computing so many: each has a line of the cache to itself.
const LINE_VALUES: usize = 8;

fn append<T: ProductElement>(
    cpu: &Cpu,
    shape: KeyValueShape,
    sequences: &mut Sequences<T>,
    spans: &[Span],
    keys: &[f32],
    values: &[f32],
) -> Result<(), OutOfMemory> {
    for span in spans {
        sequences.reserve(shape, span)?;
        if let Some(window) = shape.window {
            sequences.free_unseen(window, span);
        }
    }
    let (cols, value_cols) = (shape.heads * shape.head_dim, shape.heads * shape.value_dim);
    let store = |span: &Span, index: usize, block: &mut Arc<Block<T>>| {
        let (start, block) = (index * BLOCK, exclusive_block(block));
        for position in start.max(span.first_position)..(start + BLOCK).min(span.end_position()) {
            let row = span.first_row + position - span.first_position;
            let (keys, values) = (&keys[row * cols..][..cols], &values[row * value_cols..][..value_cols]);
            store_position(cpu.vector(), shape, block, position - start, keys, values);
        }
    };
    let blocks = |span: &Span| span.first_position / BLOCK..span.end_position().div_ceil(BLOCK);
    if let [span] = spans {
        let first = blocks(span).start;
        let blocks = SharedSlice::new(&mut sequences.slots[span.slot][blocks(span)]);
        share_rows(cpu.pool(), blocks.len(), BLOCK * cols, |share| {
            for index in share {
                // SAFETY: every block belongs to one share.
                store(span, first + index, unsafe { &mut blocks.range(index..index + 1)[0] });
            }
        });
        return Ok(());
    }
    let slots = SharedSlice::new(&mut sequences.slots);
    // A position of keys is a line of the cache for each value.
    share_rows(cpu.pool(), spans.len(), LINE_VALUES * cols, |share| {
        for span in &spans[share] {
            // SAFETY: every span belongs to one share, and no slot stands twice.
            let slot = unsafe { &mut slots.range(span.slot..span.slot + 1)[0] };
            for index in blocks(span) {
                store(span, index, &mut slot[index]);
            }
        }
    });
    Ok(())
}

/// Stores one position. `keys` are (heads, head_dim), `values` (heads, value_dim).
fn store_position<T: ProductElement>(
    functions: &VectorFunctions,
    shape: KeyValueShape,
    block: &mut Block<T>,
    slot: usize,
    keys: &[f32],
    values: &[f32],
) {
    let (head_dim, width) = (shape.head_dim, shape.width());
    let mut rounded = [T::default(); 64];
    let heads = keys.chunks_exact(head_dim).zip(values.chunks_exact(shape.value_dim));
    for (head, (keys, values)) in heads.enumerate() {
        let inverse = scale(keys, block.key_scales.get_mut(head * BLOCK + slot));
        let columns = &mut block.keys[head * head_dim * BLOCK..][..head_dim * BLOCK];
        for (keys, columns) in keys.chunks(64).zip(columns.chunks_mut(64 * BLOCK)) {
            let rounded = &mut rounded[..keys.len()];
            T::store(functions, keys, inverse, rounded);
            for (key, column) in rounded.iter().zip(columns.chunks_exact_mut(BLOCK)) {
                column[slot] = *key;
            }
        }
        let inverse = scale(values, block.value_scales.get_mut(head * BLOCK + slot));
        let stored = &mut block.values[(head * BLOCK + slot) * width..][..shape.value_dim];
        T::store(functions, values, inverse, stored);
    }
}

/// Notes the scale of some values, where there is one, and returns its inverse.
fn scale(values: &[f32], into: Option<&mut f32>) -> f32 {
    let Some(scale) = into else { return 1.0 };
    let (step, inverse) = step_of(largest_magnitude(values));
    *scale = step;
    inverse
}
