//! Packed weights with 16 rows interleaved: for reading with few rows of x in one stream, each row in a lane of its own.
//!
//! A block of 16 rows is a run of groups of columns; a group is `group * bits / 32` times the same 32-bit word of codes of every
//! row, then 16 scales and 16 biases: 576 bytes of 4 bits in groups of 64. Scales and biases of f32 that are halves and whole multiples
//! of them (GPTQ, AWQ) stand as the halves and the multiples, so that they take no more bytes than others, and are exact. x is broadcast, nothing is shuffled or summed across
//! lanes. SmolLM2 135M at 4 bits, Xeon, November 2026, one thread / two: 25 / 50 GB/s where the format's own order reaches 22 / 44
//! and plain reading 26 / 50. What multiplies many rows of x puts strips of rows back in order.

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing, memory};

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
    has_blocks(shape) && shape.scale_type.size_bytes() == 2
}

fn has_blocks(shape: PackedShape) -> bool {
    matches!(shape.packing.bits(), 2 | 4 | 8)
        && shape.packing.group().is_multiple_of(32)
        && shape.rows.is_multiple_of(LANES)
        && shape.rows > 0
}

/// Whether a matrix can be interleaved with zero points: scales of f32 that half precision holds, biases that are whole multiples of
/// them.
pub(crate) fn has_zero_points(matrix: &PackedMatrix) -> bool {
    let pairs = || matrix.scales.chunks_exact(4).zip(matrix.biases.chunks_exact(4));
    let value = |bytes: &[u8]| float_at(bytes, FloatType::F32, 0);
    matrix.scale_type == FloatType::F32
        && has_blocks(shape(matrix))
        && pairs().all(|(scale, bias)| zero_point(value(scale), value(bias)).is_some())
}

/// The multiple of a scale that a bias is, if both are halves.
fn zero_point(scale: f32, bias: f32) -> Option<f32> {
    let multiple = if scale == 0.0 { bias } else { bias / scale };
    let is_half = |value: f32| {
        let mut bytes = [0; 2];
        FloatType::F16.encode(&[value], &mut bytes);
        float_at(&bytes, FloatType::F16, 0).to_bits() == value.to_bits()
    };
    let is_exact = multiple.fract() == 0.0 && (multiple * scale).to_bits() == bias.to_bits();
    (is_exact && is_half(scale) && is_half(multiple)).then_some(multiple)
}

/// The type in which scales, and biases or their multiples, lie.
fn stored_type(scale_type: FloatType) -> FloatType {
    match scale_type {
        FloatType::F32 => FloatType::F16,
        narrow => narrow,
    }
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
        let index = |lane: usize| (block * LANES + lane) * groups + group;
        if matrix.scale_type == FloatType::F32 {
            let value = |values: &[u8], lane| float_at(values, FloatType::F32, index(lane));
            let scales: [f32; LANES] = std::array::from_fn(|lane| value(&matrix.scales, lane));
            let zero_points: [f32; LANES] = std::array::from_fn(|lane| {
                let found = zero_point(scales[lane], value(&matrix.biases, lane));
                found.expect("checked before matrices are interleaved")
            });
            let (into_halves, into_zero_points) = into_scales.split_at_mut(2 * LANES);
            FloatType::F16.encode(&scales, into_halves);
            FloatType::F16.encode(&zero_points, into_zero_points);
            continue;
        }
        for (values, into) in [&matrix.scales, &matrix.biases]
            .into_iter()
            .zip(into_scales.chunks_exact_mut(2 * LANES))
        {
            for (lane, into) in into.as_chunks_mut::<2>().0.iter_mut().enumerate() {
                into.copy_from_slice(&values[2 * index(lane)..][..2]);
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
    /// The same weights; `None` if they cannot be interleaved with scales and biases as they are.
    pub fn new(matrix: &PackedMatrix) -> Option<Interleaved> {
        fits(matrix).then(|| Interleaved::of(matrix))
    }

    /// The same weights with zero points for biases; `None` if they have none.
    pub fn with_zero_points(matrix: &PackedMatrix) -> Option<Interleaved> {
        has_zero_points(matrix).then(|| Interleaved::of(matrix))
    }

    fn of(matrix: &PackedMatrix) -> Interleaved {
        let shape = shape(matrix);
        let block_bytes = shape.groups() * group_bytes(shape.packing);
        let mut data = memory::filled("weights", shape.rows / LANES * block_bytes, 0);
        for (block, into) in data.chunks_exact_mut(block_bytes.max(1)).enumerate() {
            interleave(matrix, block, interleave_words, into);
        }
        let data = data.into();
        Interleaved { shape, data }
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

    /// The weights' bytes, as many as those of codes, and of scales and biases in 16 bits, together.
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
        let scale_bytes = scale_type.size_bytes();
        let [mut codes, mut scales, mut biases] = [row_bytes, groups * scale_bytes, groups * scale_bytes]
            .map(|bytes| memory::filled("products", rows.len() * bytes, 0));
        let data = &self.data[rows.start / LANES * self.block_bytes()..rows.end / LANES * self.block_bytes()];
        for (at, from) in data.chunks_exact(group_bytes(packing)).enumerate() {
            let (block, group) = (at / groups, at % groups);
            let (from_codes, from_scales) = from.split_at(LANES * bytes);
            deinterleave_words(
                from_codes,
                &mut codes[block * LANES * row_bytes + group * bytes..],
                row_bytes,
            );
            for lane in 0..LANES {
                let at = scale_bytes * ((block * LANES + lane) * groups + group);
                let (scale, bias) = (&mut scales[at..][..scale_bytes], &mut biases[at..][..scale_bytes]);
                match scale_type {
                    FloatType::F32 => {
                        let (own_scale, own_bias) = scale_and_bias(from_scales, scale_type, lane);
                        scale.copy_from_slice(&own_scale.to_le_bytes());
                        bias.copy_from_slice(&own_bias.to_le_bytes());
                    }
                    _ => {
                        scale.copy_from_slice(&from_scales[2 * lane..][..2]);
                        bias.copy_from_slice(&from_scales[2 * (LANES + lane)..][..2]);
                    }
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
            let (scale, bias) = scale_and_bias(scales, scale_type, lane);
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

/// Those of a row, out of the line of a group.
fn scale_and_bias(line: &[u8], scale_type: FloatType, lane: usize) -> (f32, f32) {
    let stored = stored_type(scale_type);
    let (scale, other) = (float_at(line, stored, lane), float_at(line, stored, LANES + lane));
    match scale_type {
        FloatType::F32 => (scale, other * scale),
        _ => (scale, other),
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
