//! Packed weights with 16 rows interleaved: for reading with few rows of x in one stream, each row in a lane of its own.
//!
//! A block of 16 rows is a run of groups of columns; a group is `group * bits / 32` times the same 32-bit word of codes of every
//! row, then 16 scales and 16 biases: 576 bytes of 4 bits in groups of 64. x is broadcast, nothing is shuffled or summed across
//! lanes. SmolLM2 135M at 4 bits, Xeon, November 2026, one thread / two: 25 / 50 GB/s where the format's own order reaches 22 / 44
//! and plain reading 26 / 50. What multiplies many rows of x puts strips of rows back in order.

use bytes::Bytes;
use planish_format::{PackedMatrix, PackedShape, Packing, memory};

use crate::scalar::float_at;

/// Rows of a block.
pub(crate) const LANES: usize = 16;
/// Bytes of the scales and biases of a block's group.
const SCALE_BYTES: usize = 2 * LANES * 2;

/// A packed matrix whose rows are interleaved. Cloning is cheap: the bytes are shared.
#[derive(Clone, Debug)]
pub struct Interleaved {
    pub(crate) shape: PackedShape,
    pub(crate) data: Bytes, // (rows / 16, groups, group_bytes)
}

/// Turns the words of 16 rows, each so many words after the one before, into lanes. // (16, words) -> (words, 16)
pub(crate) type InterleaveWords = fn(&[u8], usize, &mut [u8]);
/// The other way round. // (words, 16) -> (16, words)
pub(crate) type DeinterleaveWords = fn(&[u8], &mut [u8], usize);

/// Whether a matrix can be interleaved: whole words of codes, whole blocks, scales of 16 bits.
pub(crate) fn fits(matrix: &PackedMatrix) -> bool {
    fits_shape(shape(matrix))
}

fn fits_shape(shape: PackedShape) -> bool {
    matches!(shape.packing.bits(), 2 | 4 | 8)
        && shape.packing.group().is_multiple_of(32)
        && shape.rows.is_multiple_of(LANES)
        && shape.rows > 0
        && shape.scale_type.size_bytes() == 2
}

/// Values of x that share a scale: what a tile unit sums up at once, in groups of 96 values and the like a half of it.
pub(crate) fn block(packing: Packing) -> usize {
    match packing.group().is_multiple_of(64) {
        true => 64,
        false => 32,
    }
}

/// The shape of a packed matrix.
pub(crate) fn shape(matrix: &PackedMatrix) -> PackedShape {
    let shape = PackedShape::new(matrix.rows, matrix.cols, matrix.packing, matrix.scale_type);
    shape.unwrap_or_else(|error| unreachable!("the shape of a matrix: {error}"))
}

/// Bytes of a block's group: a multiple of 64.
pub(crate) fn group_bytes(packing: Packing) -> usize {
    LANES * code_bytes(packing) + SCALE_BYTES
}

/// Bytes of the codes of a group of one row.
fn code_bytes(packing: Packing) -> usize {
    packing.group() / 8 * packing.bits() as usize
}

/// Interleaves one block. // -> (groups, group_bytes)
pub(crate) fn interleave(matrix: &PackedMatrix, block: usize, interleave_words: InterleaveWords, into: &mut [u8]) {
    let groups = matrix.cols / matrix.packing.group();
    let bytes = code_bytes(matrix.packing);
    let row_bytes = groups * bytes;
    let codes = &matrix.codes[block * LANES * row_bytes..][..LANES * row_bytes];
    for (group, into) in into.chunks_exact_mut(group_bytes(matrix.packing)).enumerate() {
        let (into_codes, into_scales) = into.split_at_mut(LANES * bytes);
        interleave_words(&codes[group * bytes..], row_bytes, into_codes);
        for (values, into) in [&matrix.scales, &matrix.biases]
            .into_iter()
            .zip(into_scales.chunks_exact_mut(2 * LANES))
        {
            for (lane, into) in into.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                let at = 2 * ((block * LANES + lane) * groups + group);
                into.copy_from_slice(&values[at..at + 2]);
            }
        }
    }
}

/// As [`InterleaveWords`], for every machine.
pub(crate) fn interleave_words(from: &[u8], row_bytes: usize, into: &mut [u8]) {
    for (word, lanes) in into.chunks_exact_mut(4 * LANES).enumerate() {
        for (lane, into) in lanes.as_chunks_mut::<4>().0.iter_mut().enumerate() {
            into.copy_from_slice(&from[lane * row_bytes + 4 * word..][..4]);
        }
    }
}

impl Interleaved {
    /// The same weights; `None` if they cannot be interleaved.
    pub fn new(matrix: &PackedMatrix) -> Option<Interleaved> {
        let shape = fits(matrix).then(|| shape(matrix))?;
        let block_bytes = shape.groups() * group_bytes(shape.packing);
        let mut data = memory::filled("weights", shape.rows / LANES * block_bytes, 0);
        for (block, into) in data.chunks_exact_mut(block_bytes.max(1)).enumerate() {
            interleave(matrix, block, interleave_words, into);
        }
        let data = data.into();
        Some(Interleaved { shape, data })
    }

    /// Over bytes that [`Interleaved::data`] gave; `None` if they cannot be those of the shape.
    pub fn of_data(shape: PackedShape, data: Bytes) -> Option<Interleaved> {
        let matrix = Interleaved { shape, data };
        let whole = fits_shape(shape) && matrix.data.len() == shape.rows / LANES * matrix.block_bytes();
        whole.then_some(matrix)
    }

    /// Shape of the weights.
    pub fn shape(&self) -> PackedShape {
        self.shape
    }

    /// The weights' bytes, as many as those of codes, scales and biases together.
    pub fn data(&self) -> &Bytes {
        &self.data
    }

    /// The same weights in the format's own order.
    pub fn in_order(&self) -> PackedMatrix {
        self.strip(0..self.shape.rows, deinterleave_words)
    }

    /// Panics unless the length is what the shape says: the kernels read by address and rely on it.
    pub(crate) fn check(&self) {
        let expected = self.shape.rows / LANES * self.block_bytes();
        assert_eq!(self.data.len(), expected, "data of an interleaved {:?}", self.shape);
    }

    /// Bytes of one block of rows.
    pub(crate) fn block_bytes(&self) -> usize {
        self.shape.groups() * group_bytes(self.shape.packing)
    }

    /// Address of the line of scales and biases of a block's group, given by a column.
    #[inline]
    #[cfg_attr(
        not(all(target_arch = "x86_64", target_os = "linux")),
        expect(dead_code, reason = "no other machine has a row with such kernels yet")
    )]
    pub(crate) fn scales(&self, block: usize, column: usize) -> *const u8 {
        let group_bytes = group_bytes(self.shape.packing);
        let at = (column / self.shape.packing.group() + 1) * group_bytes - SCALE_BYTES;
        self.data.as_ptr().wrapping_add(block * self.block_bytes() + at)
    }

    /// Whole blocks of rows in the format's own order.
    pub(crate) fn strip(&self, rows: std::ops::Range<usize>, deinterleave_words: DeinterleaveWords) -> PackedMatrix {
        assert!(rows.start.is_multiple_of(LANES) && rows.len().is_multiple_of(LANES) && rows.end <= self.shape.rows);
        let PackedShape {
            cols,
            packing,
            scale_type,
            ..
        } = self.shape;
        let (groups, bytes) = (self.shape.groups(), code_bytes(packing));
        let row_bytes = groups * bytes;
        let [mut codes, mut scales, mut biases] =
            [row_bytes, groups * 2, groups * 2].map(|bytes| memory::filled("products", rows.len() * bytes, 0));
        let data = &self.data[rows.start / LANES * self.block_bytes()..rows.end / LANES * self.block_bytes()];
        for (at, from) in data.chunks_exact(group_bytes(packing)).enumerate() {
            let (block, group) = (at / groups, at % groups);
            let (from_codes, from_scales) = from.split_at(LANES * bytes);
            deinterleave_words(
                from_codes,
                &mut codes[block * LANES * row_bytes + group * bytes..],
                row_bytes,
            );
            for (values, from) in [&mut scales, &mut biases]
                .into_iter()
                .zip(from_scales.chunks_exact(2 * LANES))
            {
                for (lane, from) in from.as_chunks::<2>().0.iter().enumerate() {
                    values[2 * ((block * LANES + lane) * groups + group)..][..2].copy_from_slice(from);
                }
            }
        }
        let shape = PackedShape::new(rows.len(), cols, packing, scale_type);
        match shape.and_then(|shape| PackedMatrix::new(shape, codes.into(), scales.into(), biases.into())) {
            Ok(matrix) => matrix,
            Err(error) => unreachable!("a part of a matrix of that shape: {error}"),
        }
    }

    /// Columns of one row as f32, whole groups. // (columns)
    pub(crate) fn part_of_row(&self, row: usize, columns: std::ops::Range<usize>, into: &mut [f32]) {
        let PackedShape {
            packing, scale_type, ..
        } = self.shape;
        let (bits, lane) = (packing.bits(), row % LANES);
        let block = &self.data[row / LANES * self.block_bytes()..][..self.block_bytes()];
        let groups = block
            .chunks_exact(group_bytes(packing))
            .skip(columns.start / packing.group());
        for (group, into) in groups.zip(into.chunks_exact_mut(packing.group())) {
            let (words, scales) = group.split_at(group.len() - SCALE_BYTES);
            let scale = float_at(scales, scale_type, lane);
            let bias = float_at(scales, scale_type, LANES + lane);
            let words = words.as_chunks::<4>().0.iter().skip(lane).step_by(LANES);
            for (word, into) in words.zip(into.chunks_exact_mut(32 / bits as usize)) {
                let mut word = u32::from_le_bytes(*word);
                for value in into {
                    *value = scale * (word & ((1 << bits) - 1)) as f32 + bias;
                    word = word.checked_shr(bits).unwrap_or(0);
                }
            }
        }
    }
}

/// As [`DeinterleaveWords`], for every machine.
pub(crate) fn deinterleave_words(from: &[u8], into: &mut [u8], row_bytes: usize) {
    for (word, lanes) in from.chunks_exact(4 * LANES).enumerate() {
        for (lane, from) in lanes.as_chunks::<4>().0.iter().enumerate() {
            into[lane * row_bytes + 4 * word..][..4].copy_from_slice(from);
        }
    }
}
