//! Packed groups as llama.cpp's blocks of 32, without loss where half precision holds their scales and biases. The layouts are in
//! `simple_blocks.rs`, which reads them.

use half::f16;
use planish_format::{FloatType, PackedMatrix};

use crate::tensor::rows_cols;

/// Weights of a block.
const WEIGHTS: usize = 32;

/// A tensor type of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Block {
    F32,
    F16,
    BF16,
    /// `scale * (code - 8)`.
    Q4_0,
    /// `scale * code + bias`, 4 bits.
    Q4_1,
    /// The same, 5 bits.
    Q5_1,
    /// `scale * (code - 128)`.
    Q8_0,
}

impl Block {
    pub fn of_floats(float_type: FloatType) -> Block {
        match float_type {
            FloatType::F32 => Block::F32,
            FloatType::F16 => Block::F16,
            FloatType::BF16 => Block::BF16,
        }
    }

    /// The blocks that hold the codes of a matrix; else the floats that hold its weights, and why.
    pub fn of_codes(matrix: &PackedMatrix) -> Result<Block, (Block, String)> {
        let (bits, group) = (matrix.packing.bits(), matrix.packing.group());
        let chosen = match bits {
            _ if !group.is_multiple_of(WEIGHTS) => None,
            4 if is_centred(matrix, 8.0) => Some(Block::Q4_0),
            2..=4 => Some(Block::Q4_1),
            5 => Some(Block::Q5_1),
            8 if is_centred(matrix, 128.0) => Some(Block::Q8_0),
            _ => None,
        };
        let largest = largest(matrix);
        match chosen {
            Some(block) if largest.of_pairs <= HALF_LARGEST => Ok(block),
            Some(_) => Err((
                Block::F32,
                "half precision does not hold its scales: float32".to_owned(),
            )),
            None => {
                let (block, name) = match largest.of_weights <= HALF_LARGEST {
                    true => (Block::F16, "half precision"),
                    false => (Block::F32, "float32"),
                };
                let zeros = if group.is_multiple_of(WEIGHTS) {
                    " with such zero points"
                } else {
                    ""
                };
                let what = format!("GGUF has no blocks for {bits} bits in groups of {group}{zeros}: {name}");
                Err((block, what))
            }
        }
    }

    /// The number of the type.
    pub fn id(self) -> u32 {
        match self {
            Block::F32 => 0,
            Block::F16 => 1,
            Block::Q4_0 => 2,
            Block::Q4_1 => 3,
            Block::Q5_1 => 7,
            Block::Q8_0 => 8,
            Block::BF16 => 30,
        }
    }

    pub fn is_packed(self) -> bool {
        self.float_type().is_none()
    }

    pub fn float_type(self) -> Option<FloatType> {
        match self {
            Block::F32 => Some(FloatType::F32),
            Block::F16 => Some(FloatType::F16),
            Block::BF16 => Some(FloatType::BF16),
            Block::Q4_0 | Block::Q4_1 | Block::Q5_1 | Block::Q8_0 => None,
        }
    }

    /// Bytes of 32 codes with their scale.
    fn block_bytes(self) -> usize {
        match self {
            Block::Q4_0 => 18,
            Block::Q4_1 => 20,
            Block::Q5_1 => 24,
            Block::Q8_0 => 34,
            Block::F32 => 4 * WEIGHTS,
            Block::F16 | Block::BF16 => 2 * WEIGHTS,
        }
    }

    /// Bytes of a tensor; `None` if they are too many to count.
    pub fn size_bytes(self, shape: &[usize]) -> Option<u64> {
        let (rows, cols) = rows_cols(shape);
        let row = match self.float_type() {
            Some(float_type) => cols.checked_mul(float_type.size_bytes())?,
            None => (cols / WEIGHTS).checked_mul(self.block_bytes())?,
        };
        u64::try_from(rows.checked_mul(row)?).ok()
    }

    /// The blocks of one row; returns how many of its groups have numbers that half precision does not hold.
    pub fn encode_row(self, matrix: &PackedMatrix, row: usize, bytes: &mut [u8]) -> usize {
        let group = matrix.packing.group();
        let (scales, biases) = affine(matrix, row);
        let mut codes = vec![0; matrix.cols];
        matrix.row_codes(row, &mut codes);
        for (index, (codes, block)) in codes
            .chunks(WEIGHTS)
            .zip(bytes.chunks_mut(self.block_bytes()))
            .enumerate()
        {
            let at = index * WEIGHTS / group;
            self.encode(codes, (f16::from_f32(scales[at]), f16::from_f32(biases[at])), block);
        }
        let has_bias = matches!(self, Block::Q4_1 | Block::Q5_1);
        let pairs = scales.iter().zip(&biases);
        let inexact = pairs.filter(|(scale, bias)| !is_half(**scale) || (has_bias && !is_half(**bias)));
        inexact.count()
    }

    fn encode(self, codes: &[u8], (scale, bias): (f16, f16), block: &mut [u8]) {
        block[..2].copy_from_slice(&scale.to_le_bytes());
        if self == Block::Q8_0 {
            let signed = codes.iter().map(|code| code ^ 0x80);
            block[2..].iter_mut().zip(signed).for_each(|(byte, code)| *byte = code);
            return;
        }
        let mut start = 2;
        if self != Block::Q4_0 {
            block[2..4].copy_from_slice(&bias.to_le_bytes());
            start = 4;
        }
        if self == Block::Q5_1 {
            let fifth = codes.iter().enumerate();
            let fifth = fifth.fold(0u32, |bits, (index, code)| bits | u32::from(code >> 4) << index);
            block[4..8].copy_from_slice(&fifth.to_le_bytes());
            start = 8;
        }
        let (low, high) = codes.split_at(WEIGHTS / 2);
        for ((byte, low), high) in block[start..].iter_mut().zip(low).zip(high) {
            *byte = (low & 15) | (high & 15) << 4;
        }
    }
}

/// The largest finite number of half precision.
const HALF_LARGEST: f32 = 65504.0;

/// Bounds of magnitudes in a matrix.
struct Largest {
    /// Of scales and biases.
    of_pairs: f32,
    /// Of weights.
    of_weights: f32,
}

fn largest(matrix: &PackedMatrix) -> Largest {
    let code = ((1u32 << matrix.packing.bits()) - 1) as f32;
    let mut found = Largest {
        of_pairs: 0.0,
        of_weights: 0.0,
    };
    for row in 0..matrix.rows {
        let (scales, biases) = affine(matrix, row);
        for (scale, bias) in scales.iter().zip(&biases) {
            found.of_pairs = found.of_pairs.max(scale.abs()).max(bias.abs());
            // A code of 0 or the largest gives the largest weight.
            found.of_weights = found.of_weights.max(bias.abs()).max((scale * code + bias).abs());
        }
    }
    found
}

/// Scales and biases of a row. // (groups) each
fn affine(matrix: &PackedMatrix, row: usize) -> (Vec<f32>, Vec<f32>) {
    let packed = matrix.row(row);
    let groups = matrix.cols / matrix.packing.group();
    let decoded = |bytes: &[u8]| {
        let mut values = vec![0.0; groups];
        packed.scale_type.decode(bytes, &mut values);
        values
    };
    (decoded(packed.scales), decoded(packed.biases))
}

/// Whether every bias is that of codes around a middle.
fn is_centred(matrix: &PackedMatrix, middle: f32) -> bool {
    (0..matrix.rows).all(|row| {
        let (scales, biases) = affine(matrix, row);
        scales.iter().zip(&biases).all(|(scale, bias)| *bias == -middle * scale)
    })
}

/// Whether half precision holds a number.
fn is_half(value: f32) -> bool {
    f16::from_f32(value).to_f32() == value
}
