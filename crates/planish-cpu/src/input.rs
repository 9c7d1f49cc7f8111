//! The rows of x in the form that the kernels of a packed matrix want: rounded to 8 bits or to bf16, or as floats.
//!
//! 8 bits: per block of a group of the weights, `x ~ scale * code` with `scale = max|x| / 127` and
//! `code = round_half_even(x / scale)`. The sums are those of the rounded values, so that over a block
//! `sum (s * w + b) * x = s * scale * sum w * code + b * sum_x` is exact for the rounded x. A block that holds infinity or
//! NaN gets the scale NaN: it shows in the output. Small blocks cost time and save precision: with blocks of 64, 32, 16 and 8
//! values the logits of SmolLM2 135M diverge by about 0.006, 0.0035, 0.002 and 0.001 nats.
//! 16 bits, for interleaved weights: the same with `scale = max|x| / 32639` and `code = 256 * high + low` in two planes of bytes.
//! Twice as many products of bytes, but blocks can be wide.
//! Kernels choose the order of the values within a row (they unpack codes interleaved); groups stay in order.

use planish_format::Packing;

use crate::scratch::Buffer;

/// What the form of the input depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Rows of x.
    pub m: usize,
    /// Values of a row.
    pub cols: usize,
    /// Bits and group of the weights.
    pub packing: Packing,
    /// Values of x that share a scale once rounded to 8 bits; divides the group.
    pub block: usize,
}

impl Shape {
    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.cols / self.packing.group()
    }

    /// Values from one row of x to the next: room for the largest chunk that a kernel reads at once, filled with zeros, and
    /// an odd number of cache lines so that equal columns of several rows do not fall into one cache set.
    pub fn stride(&self) -> usize {
        ((self.cols.next_multiple_of(256) / 64) | 1) * 64
    }

    /// Blocks of a row.
    pub fn blocks(&self) -> usize {
        self.cols / self.block
    }

    /// Scales from one row of x to the next, filled with zeros: as far as the values of [`Shape::stride`].
    pub fn block_stride(&self) -> usize {
        (self.cols.next_multiple_of(256) / self.block).next_multiple_of(16)
    }

    /// Sums from one row of x to the next, filled with zeros.
    pub fn group_stride(&self) -> usize {
        self.groups().next_multiple_of(16)
    }
}

/// Rows of a tile of 16 bits.
pub(crate) const INT16_ROWS: usize = 16;

impl Shape {
    /// Rows of a tile of 16 bits: those after the last row of x hold whatever.
    pub fn tile_rows(&self) -> usize {
        self.m.min(INT16_ROWS)
    }

    /// Codes of 16 bits from one block of a tile to the next, in bytes.
    pub fn block_bytes(&self) -> usize {
        2 * self.tile_rows() * self.block
    }
}

/// Some groups of a tile of x while they are being rounded to 16 bits.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "no other machine has a row with such kernels yet")
)]
pub(crate) struct Int16Tile<'a> {
    /// High bytes, then low ones. // (blocks, 2 planes, tile rows, block)
    pub codes: &'a mut [i8],
    /// // (blocks, tile rows)
    pub scales: &'a mut [f32],
    /// Of the rounded values. // (blocks, tile rows)
    pub sums: &'a mut [f32],
}

/// All rows of x rounded to 16 bits, in tiles of up to 16 rows.
#[derive(Clone, Copy)]
pub(crate) struct Int16Input<'a> {
    pub shape: Shape,
    /// // (tiles, blocks, 2 planes, tile rows, block)
    pub codes: &'a [i8],
    /// // (tiles, blocks, tile rows)
    pub scales: &'a [f32],
    /// Of the rounded values. // (tiles, blocks, tile rows)
    pub sums: &'a [f32],
}

impl<'a> Int16Input<'a> {
    /// One of the tiles.
    #[inline]
    pub(crate) fn of_tile(&self, tile: usize) -> Int16Input<'a> {
        let shape = self.shape;
        fn part<T>(values: &[T], tile: usize, length: usize) -> &[T] {
            &values[tile * length..][..length]
        }
        Int16Input {
            shape,
            codes: part(self.codes, tile, shape.blocks() * shape.block_bytes()),
            scales: part(self.scales, tile, shape.blocks() * shape.tile_rows()),
            sums: part(self.sums, tile, shape.blocks() * shape.tile_rows()),
        }
    }
}

/// One row of x while it is being rounded.
pub(crate) struct Int8Row<'a> {
    /// // (stride)
    pub codes: &'a mut [i8],
    /// // (block_stride)
    pub scales: &'a mut [f32],
    /// Sum of `scale * code` over a group. // (group_stride)
    pub sums: &'a mut [f32],
}

/// One row of x while it is being arranged as floats.
pub(crate) struct ExactRow<'a> {
    /// // (stride)
    pub values: &'a mut [f32],
    /// Sum of the values of a group. // (group_stride)
    pub sums: &'a mut [f32],
}

/// All rows of x, rounded to 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Int8Input<'a> {
    pub shape: Shape,
    /// // (m, stride)
    pub codes: &'a [i8],
    /// // (m, block_stride)
    pub scales: &'a [f32],
    /// // (m, group_stride)
    pub sums: &'a [f32],
}

impl<'a> Int8Input<'a> {
    /// One of the rows of x, prepared as if it were alone.
    pub(crate) fn of_row(&self, row: usize) -> Int8Input<'a> {
        let shape = self.shape;
        let (stride, group_stride) = (shape.stride(), shape.group_stride());
        Int8Input {
            shape,
            codes: &self.codes[row * stride..][..stride],
            scales: &self.scales[row * shape.block_stride()..][..shape.block_stride()],
            sums: &self.sums[row * group_stride..][..group_stride],
        }
    }
}

/// All rows of x rounded to bf16, as the tiles of a matrix unit.
#[derive(Clone, Copy)]
#[cfg_attr(
    not(all(target_arch = "x86_64", target_os = "linux")),
    expect(dead_code, reason = "no other machine has a row with such kernels yet")
)]
pub(crate) struct Bf16Input<'a> {
    /// Rows of x.
    pub m: usize,
    /// Steps of 32 columns in a row.
    pub steps: usize,
    /// Zero from the last column on; there are two blocks for every 32 rows, those after `m` hold whatever.
    /// // (blocks of 16 rows, steps, 16 x 32 in the kernels' order)
    pub tiles: &'a [u16],
}

/// Rows of a tile of bf16.
pub(crate) const BF16_ROWS: usize = 16;
/// Columns of a tile of bf16.
pub(crate) const BF16_COLS: usize = 32;

/// All rows of x as floats.
#[derive(Clone, Copy)]
pub(crate) struct ExactInput<'a> {
    pub shape: Shape,
    /// // (m, stride)
    pub values: &'a [f32],
    /// // (m, group_stride)
    pub sums: &'a [f32],
}

impl<'a> ExactInput<'a> {
    /// One of the rows of x, prepared as if it were alone.
    pub(crate) fn of_row(&self, row: usize) -> ExactInput<'a> {
        let shape = self.shape;
        let (stride, group_stride) = (shape.stride(), shape.group_stride());
        ExactInput {
            shape,
            values: &self.values[row * stride..][..stride],
            sums: &self.sums[row * group_stride..][..group_stride],
        }
    }
}

/// Memory of the input forms.
#[derive(Default)]
pub(crate) struct InputBuffers {
    pub values: Buffer,
    pub scales: Buffer,
    pub sums: Buffer,
}

/// The largest magnitude; infinity and NaN come last.
#[inline(always)]
pub(crate) fn largest_magnitude(values: &[f32]) -> f32 {
    // Bits of magnitudes order like the magnitudes, and those of NaN come last.
    let bits = |largest: i32, value: &f32| largest.max((value.to_bits() & 0x7fff_ffff) as i32);
    f32::from_bits(values.iter().fold(0, bits) as u32)
}

/// The largest code of 8 bits.
const MOST: f32 = 127.0;
/// The largest code of 16 bits whose two signed bytes fit: 127 * 256 + 127.
const MOST_WIDE: f32 = 32_639.0;

/// Scale of a block of x whose largest magnitude has these bits, and its inverse. Values too small to matter become zero.
pub(crate) fn step_of(largest: f32) -> (f32, f32) {
    step(largest, MOST)
}

/// As [`step_of`], for 16 bits.
#[cfg_attr(
    not(target_arch = "x86_64"),
    expect(dead_code, reason = "no other machine has a row with such kernels yet")
)]
pub(crate) fn wide_step_of(largest: f32) -> (f32, f32) {
    step(largest, MOST_WIDE)
}

fn step(largest: f32, most: f32) -> (f32, f32) {
    if largest < 1e-30 {
        (0.0, 0.0)
    } else if largest.is_finite() {
        (largest / most, most / largest)
    } else {
        (f32::NAN, 0.0)
    }
}
