//! Memory that calls reuse: aligned to cache lines, grown when needed, never shrunk.

use bytemuck::{Pod, Zeroable};
use planish_format::{Packing, memory};

/// One cache line; the alignment of all buffers.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u8; 64]);

/// A buffer of plain values that starts at a cache line.
#[derive(Default)]
pub(crate) struct Buffer {
    lines: Vec<Line>,
}

impl Buffer {
    /// The first `count` values, with whatever they held before; zero when new.
    pub fn take<T: Pod>(&mut self, count: usize) -> &mut [T] {
        let lines = (count * size_of::<T>()).div_ceil(size_of::<Line>());
        if self.lines.len() < lines {
            memory::resize("products", &mut self.lines, lines, Line::zeroed());
        }
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..count]
    }

    /// The first `count` values as last written.
    pub fn get<T: Pod>(&self, count: usize) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..count]
    }
}

/// What one worker needs besides the shared input.
#[derive(Default)]
#[cfg_attr(
    not(target_arch = "x86_64"),
    allow(dead_code, reason = "not every instruction set needs all of it")
)]
pub(crate) struct WorkerScratch {
    /// What kernels keep between calls about the packing in `lanes_of`.
    pub lanes: Buffer,
    /// The packing that `lanes` was made for.
    pub lanes_of: Option<Packing>,
    /// Unpacked codes of some rows.
    pub tile: Buffer,
    /// Scales and biases of the tile.
    pub scales: Buffer,
    /// Weights of some rows as floats.
    pub floats: Buffer,
    /// Sums that are not finished.
    pub sums: Buffer,
    /// Products that are not narrowed yet.
    pub products: Buffer,
}
