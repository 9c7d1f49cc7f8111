//! The keys and values that one attention layer remembers, laid out for the kernels of `attention.rs`.
//!
//! Positions come in blocks of 64. In a block keys are transposed, (heads, head_dim, 64), so that a product of queries
//! and keys runs along positions; values are (heads, 64, width) with value_dim padded to `width`, a multiple of 16.
//! Blocks are allocated as positions fill, and freed once no row can see them again.

use half::f16;
use planish_ops::{CacheType, REWIND};

use crate::Cpu;
use crate::input::{largest_magnitude, step_of};
use crate::piece::Piece;
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

/// Both empty where positions were freed.
pub(crate) struct Block<T> {
    pub(crate) keys: Piece<T>,   // (heads, head_dim, BLOCK)
    pub(crate) values: Piece<T>, // (heads, BLOCK, width)
    key_scales: Box<[f32]>,      // (heads, BLOCK), none where T is not scaled
    value_scales: Box<[f32]>,    // likewise
}

impl<T: ProductElement> Block<T> {
    fn free() -> Block<T> {
        Block {
            keys: Piece::default(),
            values: Piece::default(),
            key_scales: Box::default(),
            value_scales: Box::default(),
        }
    }

    fn zeros(shape: KeyValueShape) -> Block<T> {
        // Blocks behind a window come and go.
        let zeros = |len: usize| match shape.window {
            Some(_) => Piece::Own(vec![T::default(); len].into_boxed_slice()),
            None => Piece::zeros(len),
        };
        let scales = || vec![0.0; if T::SCALED { shape.heads * BLOCK } else { 0 }].into_boxed_slice();
        Block {
            keys: zeros(shape.heads * shape.head_dim * BLOCK),
            values: zeros(shape.heads * BLOCK * shape.width()),
            key_scales: scales(),
            value_scales: scales(),
        }
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

pub(crate) enum Blocks {
    Single(Vec<Block<f32>>),
    Half(Vec<Block<f16>>),
    Byte(Vec<Block<i8>>),
}

/// Keys and values of one layer.
pub struct KeyValues {
    shape: KeyValueShape,
    blocks: Blocks,
}

impl KeyValues {
    /// Nothing remembered yet.
    pub fn new(shape: KeyValueShape) -> KeyValues {
        let blocks = match shape.cache {
            CacheType::Float32 => Blocks::Single(Vec::new()),
            CacheType::Float16 => Blocks::Half(Vec::new()),
            CacheType::Int8 => Blocks::Byte(Vec::new()),
        };
        KeyValues { shape, blocks }
    }

    /// Heads, sizes and element.
    pub fn shape(&self) -> KeyValueShape {
        self.shape
    }

    pub(crate) fn blocks(&self) -> &Blocks {
        &self.blocks
    }

    /// Bytes of the keys and values of one position.
    pub fn position_bytes(&self) -> usize {
        let values = self.shape.heads * (self.shape.head_dim + self.shape.value_dim);
        match &self.blocks {
            Blocks::Single(_) => values * size_of::<f32>(),
            Blocks::Half(_) => values * size_of::<f16>(),
            Blocks::Byte(_) => values + 2 * self.shape.heads * size_of::<f32>(),
        }
    }

    /// Memory taken.
    pub fn bytes(&self) -> usize {
        match &self.blocks {
            Blocks::Single(blocks) => blocks.iter().map(Block::bytes).sum(),
            Blocks::Half(blocks) => blocks.iter().map(Block::bytes).sum(),
            Blocks::Byte(blocks) => blocks.iter().map(Block::bytes).sum(),
        }
    }

    /// Stores `keys` (rows, heads, head_dim) and `values` (rows, heads, value_dim) at `first_position` and on.
    pub fn append(&mut self, cpu: &Cpu, first_position: usize, keys: &[f32], values: &[f32]) {
        match &mut self.blocks {
            Blocks::Single(blocks) => append(cpu, self.shape, blocks, first_position, keys, values),
            Blocks::Half(blocks) => append(cpu, self.shape, blocks, first_position, keys, values),
            Blocks::Byte(blocks) => append(cpu, self.shape, blocks, first_position, keys, values),
        }
    }
}

fn append<T: ProductElement>(
    cpu: &Cpu,
    shape: KeyValueShape,
    blocks: &mut Vec<Block<T>>,
    first_position: usize,
    keys: &[f32],
    values: &[f32],
) {
    let (cols, value_cols) = (shape.heads * shape.head_dim, shape.heads * shape.value_dim);
    let rows = keys.len() / cols;
    assert!(keys.len() == rows * cols && values.len() == rows * value_cols);
    let needed = (first_position + rows).div_ceil(BLOCK);
    let first_block = first_position / BLOCK;
    blocks.resize_with(blocks.len().max(needed), Block::free);
    for block in &mut blocks[first_block..needed] {
        if block.keys.is_empty() {
            *block = Block::zeros(shape);
        }
    }
    if let Some(window) = shape.window {
        // From the end: those before the first free one were freed earlier.
        let unseen = (first_position + 1).saturating_sub(window.saturating_add(REWIND)) / BLOCK;
        let stored = |block: &&mut Block<T>| !block.keys.is_empty();
        for block in blocks[..unseen].iter_mut().rev().take_while(stored) {
            *block = Block::free();
        }
    }
    let blocks = SharedSlice::new(&mut blocks[first_block..needed]);
    let functions = cpu.vector();
    share_rows(cpu.pool(), needed - first_block, BLOCK * cols, |share| {
        for index in share {
            let start = (first_block + index) * BLOCK;
            // SAFETY: every block belongs to one share.
            let block = unsafe { &mut blocks.range(index..index + 1)[0] };
            for position in start.max(first_position)..(start + BLOCK).min(first_position + rows) {
                let row = position - first_position;
                let (keys, values) = (&keys[row * cols..][..cols], &values[row * value_cols..][..value_cols]);
                store_position(functions, shape, block, position - start, keys, values);
            }
        }
    });
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
