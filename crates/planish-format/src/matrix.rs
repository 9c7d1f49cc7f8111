//! Matrices as the format knows them: plain floats borrowed from anywhere, and packed ones.
//!
//! Both are row-major and contiguous. Rows are output features; for stacked experts all experts' rows.

use std::ops::Range;

use bytes::Bytes;

use crate::bits::unpack_codes;
use crate::instructions::decode_row;
use crate::row::DecodeRow;
use crate::{FloatType, FormatError, Packing, memory};

/// Plain weights, `rows` x `cols`, borrowed. The bytes need no alignment.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FloatMatrix<'a> {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// Type of the values.
    pub float_type: FloatType,
    /// Little-endian values. // (rows, cols) of `float_type`
    pub data: &'a [u8],
}

impl<'a> FloatMatrix<'a> {
    /// Plain weights over little-endian `data`.
    ///
    /// # Errors
    /// If `data` is not `rows * cols * float_type.size_bytes()` long.
    pub fn new(rows: usize, cols: usize, float_type: FloatType, data: &'a [u8]) -> Result<Self, FormatError> {
        let expected = product(&[rows, cols, float_type.size_bytes()]).ok_or(FormatError::TooLarge { rows, cols })?;
        check_length("weights", (rows, cols), expected, data.len())?;
        Ok(FloatMatrix {
            rows,
            cols,
            float_type,
            data,
        })
    }

    /// The same values with only some rows.
    ///
    /// # Panics
    /// If the range reaches beyond the last row.
    pub fn slice_rows(&self, rows: Range<usize>) -> FloatMatrix<'a> {
        let row_bytes = self.row_bytes();
        FloatMatrix {
            rows: rows.len(),
            data: &self.data[rows.start * row_bytes..rows.end * row_bytes],
            ..*self
        }
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.cols * self.float_type.size_bytes()
    }
}

/// The shape of a packed matrix and the sizes that follow from it. Constructed only when they fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct PackedShape {
    /// Output features.
    pub rows: usize,
    /// Input features, a multiple of the group.
    pub cols: usize,
    /// Bits and group.
    pub packing: Packing,
    /// Type of scales and biases.
    pub scale_type: FloatType,
}

impl PackedShape {
    /// Checks that rows hold whole groups and whole 32-bit words.
    ///
    /// # Errors
    /// As [`Packing::check_cols`], and if the matrix cannot be addressed.
    pub fn new(rows: usize, cols: usize, packing: Packing, scale_type: FloatType) -> Result<Self, FormatError> {
        packing.check_cols(cols)?;
        // No part is larger than the weights as f32, so no later product overflows.
        product(&[rows, cols, 4]).ok_or(FormatError::TooLarge { rows, cols })?;
        Ok(PackedShape {
            rows,
            cols,
            packing,
            scale_type,
        })
    }

    /// Groups of one row.
    pub fn groups(&self) -> usize {
        self.cols / self.packing.group()
    }

    /// Bytes of one row of codes.
    pub fn code_row_bytes(&self) -> usize {
        self.cols / 8 * self.packing.bits() as usize
    }

    /// Bytes of one row of scales, or of biases.
    pub fn scale_row_bytes(&self) -> usize {
        self.groups() * self.scale_type.size_bytes()
    }

    /// Bytes of all codes.
    pub fn code_bytes(&self) -> usize {
        self.rows * self.code_row_bytes()
    }

    /// Bytes of all scales, or of all biases.
    pub fn scale_bytes(&self) -> usize {
        self.rows * self.scale_row_bytes()
    }
}

/// A packed matrix of `rows` x `cols` weights. Cloning is cheap: the bytes are shared.
///
/// Made by [`PackedMatrix::new`], which checks the lengths; the fields are for reading.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PackedMatrix {
    /// Rows (output features; for stacked experts all experts' rows).
    pub rows: usize,
    /// Columns (input features), a multiple of the group.
    pub cols: usize,
    /// Bits and group.
    pub packing: Packing,
    /// Type of `scales` and `biases`.
    pub scale_type: FloatType,
    /// Little-endian `u32` words. // (rows, cols * bits / 32)
    pub codes: Bytes,
    /// Scales. // (rows, cols / group) of `scale_type`
    pub scales: Bytes,
    /// Biases. // (rows, cols / group) of `scale_type`
    pub biases: Bytes,
}

impl PackedMatrix {
    /// A packed matrix over bytes that are owned or mapped.
    ///
    /// # Errors
    /// If a part is not as long as the shape says.
    pub fn new(shape: PackedShape, codes: Bytes, scales: Bytes, biases: Bytes) -> Result<Self, FormatError> {
        let PackedShape {
            rows,
            cols,
            packing,
            scale_type,
        } = shape;
        check_length("codes", (rows, cols), shape.code_bytes(), codes.len())?;
        check_length("scales", (rows, cols), shape.scale_bytes(), scales.len())?;
        check_length("biases", (rows, cols), shape.scale_bytes(), biases.len())?;
        Ok(PackedMatrix {
            rows,
            cols,
            packing,
            scale_type,
            codes,
            scales,
            biases,
        })
    }

    /// The shape, with the sizes that follow from it.
    pub fn shape(&self) -> PackedShape {
        let PackedMatrix {
            rows,
            cols,
            packing,
            scale_type,
            ..
        } = *self;
        PackedShape {
            rows,
            cols,
            packing,
            scale_type,
        }
    }

    /// The same matrix with only some rows, sharing the bytes.
    ///
    /// # Panics
    /// If the range reaches beyond the last row.
    pub fn slice_rows(&self, rows: Range<usize>) -> PackedMatrix {
        let slice = |part: &Bytes, row_bytes: usize| part.slice(rows.start * row_bytes..rows.end * row_bytes);
        let shape = self.shape();
        PackedMatrix {
            rows: rows.len(),
            codes: slice(&self.codes, shape.code_row_bytes()),
            scales: slice(&self.scales, shape.scale_row_bytes()),
            biases: slice(&self.biases, shape.scale_row_bytes()),
            ..*self
        }
    }

    /// A matrix of its own with the rows of several ranges, in this order.
    ///
    /// # Panics
    /// If a range reaches beyond the last row.
    pub fn gather_rows(&self, ranges: &[Range<usize>]) -> PackedMatrix {
        let gather = |part: &Bytes, row_bytes: usize| {
            let slice = |range: &Range<usize>| &part[range.start * row_bytes..range.end * row_bytes];
            let mut gathered = memory::with_room("weights", ranges.iter().map(|range| slice(range).len()).sum());
            ranges.iter().for_each(|range| gathered.extend_from_slice(slice(range)));
            Bytes::from(gathered)
        };
        let shape = self.shape();
        PackedMatrix {
            rows: ranges.iter().map(|range| range.len()).sum(),
            codes: gather(&self.codes, shape.code_row_bytes()),
            scales: gather(&self.scales, shape.scale_row_bytes()),
            biases: gather(&self.biases, shape.scale_row_bytes()),
            ..*self
        }
    }

    /// The codes of one row, one a byte. // (cols)
    ///
    /// # Panics
    /// If there is no such row or `codes` is not `cols` long.
    pub fn row_codes(&self, row: usize, codes: &mut [u8]) {
        unpack_codes(self.row(row).codes, self.packing.bits(), codes);
    }

    /// The weights of one row, `scale * code + bias` in `f32`, not fused. // (cols)
    ///
    /// # Panics
    /// If there is no such row or `weights` is not `cols` long.
    pub fn dequantize_row(&self, row: usize, weights: &mut [f32]) {
        let mut codes = vec![0; self.cols];
        self.dequantize_row_with(row, &mut codes, weights);
    }

    /// As [`PackedMatrix::dequantize_row`], with room for the codes. // both (cols)
    pub(crate) fn dequantize_row_with(&self, row: usize, codes: &mut [u8], weights: &mut [f32]) {
        assert_eq!(weights.len(), self.cols, "weights of a row");
        decode_row(DecodeRow {
            packed: self.row(row),
            codes,
            weights,
        });
    }

    /// The bytes of one row.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> PackedRow<'_> {
        let shape = self.shape();
        let span = |row_bytes: usize| row * row_bytes..(row + 1) * row_bytes;
        PackedRow {
            packing: self.packing,
            scale_type: self.scale_type,
            codes: &self.codes[span(shape.code_row_bytes())],
            scales: &self.scales[span(shape.scale_row_bytes())],
            biases: &self.biases[span(shape.scale_row_bytes())],
        }
    }
}

/// One row of a packed matrix, borrowed.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct PackedRow<'a> {
    /// Bits and group.
    pub packing: Packing,
    /// Type of `scales` and `biases`.
    pub scale_type: FloatType,
    /// Little-endian `u32` words. // (cols * bits / 32)
    pub codes: &'a [u8],
    /// Scales. // (cols / group) of `scale_type`
    pub scales: &'a [u8],
    /// Biases. // (cols / group) of `scale_type`
    pub biases: &'a [u8],
}

/// The product of sizes, unless it overflows.
fn product(sizes: &[usize]) -> Option<usize> {
    sizes.iter().try_fold(1usize, |total, &size| total.checked_mul(size))
}

fn check_length(
    part: &'static str,
    (rows, cols): (usize, usize),
    expected: usize,
    found: usize,
) -> Result<(), FormatError> {
    if expected == found {
        Ok(())
    } else {
        Err(FormatError::Length {
            part,
            rows,
            cols,
            expected,
            found,
        })
    }
}
