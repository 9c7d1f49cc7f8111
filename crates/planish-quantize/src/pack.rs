//! One weight, or some of its rows, to codes, scales and biases.

use std::borrow::Cow;
use std::ops::Range;

use planish_checkpoint::mlx::View;
use planish_checkpoint::{Tensor, Weight};
use planish_format::{
    FloatMatrix, FloatType, FormatError, PackedMatrix, Packing, QuantizeOptions, dequantize, first_non_finite,
    quantize_with,
};

use crate::{Error, Recipe};

/// The type that the floats of a packed weight are given without a wish: that of its scales, and bfloat16 where these are f32
/// only to hold the products of GGUF's two-level scales.
pub(crate) fn default_type(scale_type: FloatType) -> FloatType {
    match scale_type {
        FloatType::F32 => FloatType::BF16,
        own => own,
    }
}

/// Packs the weight called `name` with `packing`, the rule and the types that `recipe` asks for. A plain weight of more than
/// two dimensions counts as the matrix of all its rows; a packed one (from a GGUF file) is decoded first.
///
/// # Errors
/// NaN or infinity unless the recipe allows them; a shape or type that cannot be packed.
pub fn pack_weight(name: &str, weight: &Weight, packing: Packing, recipe: &Recipe) -> Result<PackedMatrix, Error> {
    let floats = Floats::new(name, weight, recipe.dtype)?;
    floats.pack(0..floats.rows, packing, recipe)
}

/// A weight, or a view of it, as rows of floats of one type, whatever it is stored as.
pub(crate) struct Floats<'a> {
    name: &'a str,
    stored: Stored<'a>,
    /// Columns of the stored weight.
    stored_cols: usize,
    /// `None` is all of the weight.
    view: Option<&'a View>,
    /// Product of all sizes but the last.
    pub rows: usize,
    pub cols: usize,
    /// The type of the rows that [`Floats::rows`] gives.
    pub float_type: FloatType,
}

enum Stored<'a> {
    Plain { float_type: FloatType, data: &'a [u8] },
    Packed(&'a PackedMatrix),
}

impl<'a> Floats<'a> {
    /// Views `weight` as floats of type `dtype`; `None` means its own type, and [`default_type`] for a packed one.
    pub fn new(name: &'a str, weight: &'a Weight, dtype: Option<FloatType>) -> Result<Floats<'a>, Error> {
        match weight {
            Weight::Plain(tensor) => {
                let float_type = float_type(name, tensor)?;
                let (rows, cols) = rows_and_cols(&tensor.shape);
                let stored = Stored::Plain {
                    float_type,
                    data: &tensor.data,
                };
                Ok(Floats {
                    name,
                    stored,
                    stored_cols: cols,
                    view: None,
                    rows,
                    cols,
                    float_type: dtype.unwrap_or(float_type),
                })
            }
            Weight::Packed(matrix) => {
                let float_type = dtype.unwrap_or_else(|| default_type(matrix.scale_type));
                Ok(Floats {
                    name,
                    stored: Stored::Packed(matrix),
                    stored_cols: matrix.cols,
                    view: None,
                    rows: matrix.rows,
                    cols: matrix.cols,
                    float_type,
                })
            }
        }
    }

    /// Only the values that a view takes.
    pub fn viewed(self, view: &'a View) -> Floats<'a> {
        if view.is_whole(self.rows) {
            return self;
        }
        let (rows, cols) = view.size(self.rows, self.cols);
        Floats {
            view: Some(view),
            rows,
            cols,
            ..self
        }
    }

    /// Some rows as little-endian values of `self.float_type`. // (rows.len(), cols)
    pub fn rows(&self, rows: Range<usize>) -> Cow<'a, [u8]> {
        match self.view {
            None => self.stored_rows(rows),
            Some(view) if view.turned => Cow::Owned(self.turned(view, rows)),
            Some(view) => Cow::Owned(self.chosen(view, rows)),
        }
    }

    /// Rows that lie as they are stored.
    fn chosen(&self, view: &View, rows: Range<usize>) -> Vec<u8> {
        let size = self.float_type.size_bytes();
        let mut chosen = Vec::with_capacity(rows.len() * self.cols * size);
        for row in rows {
            let stored = view.stored_row(row);
            let bytes = self.stored_rows(stored..stored + 1);
            let columns = bytes.chunks_exact(size).skip(view.first_col).step_by(view.col_step);
            match view.col_step {
                1 => chosen.extend_from_slice(&bytes[view.first_col * size..]),
                _ => columns.for_each(|value| chosen.extend_from_slice(value)),
            }
        }
        if view.add != 0.0 {
            let mut values = vec![0.0; chosen.len() / size];
            self.float_type.decode(&chosen, &mut values);
            values.iter_mut().for_each(|value| *value += view.add);
            self.float_type.encode(&values, &mut chosen);
        }
        chosen
    }

    /// Rows that are stored as columns, block after block.
    fn turned(&self, view: &View, rows: Range<usize>) -> Vec<u8> {
        let size = self.float_type.size_bytes();
        let taken = (self.stored_cols - view.first_col).div_ceil(view.col_step);
        let row_bytes = self.stored_cols * size;
        let mut turned = Vec::with_capacity(rows.len() * self.cols * size);
        let mut next = rows.start;
        while next < rows.end {
            let (block, first) = (next / taken, next % taken);
            let last = (first + rows.end - next).min(taken);
            let start = block * view.block_rows;
            let bytes = self.stored_rows(start + view.rows.start..start + view.rows.end);
            for index in first..last {
                let column = (view.first_col + index * view.col_step) * size;
                let values = bytes.chunks_exact(row_bytes).map(|row| &row[column..column + size]);
                values.for_each(|value| turned.extend_from_slice(value));
            }
            next += last - first;
        }
        turned
    }

    /// Rows of the stored weight.
    fn stored_rows(&self, rows: Range<usize>) -> Cow<'a, [u8]> {
        match &self.stored {
            Stored::Plain { float_type, data } => {
                let row_bytes = self.stored_cols * float_type.size_bytes();
                let bytes = &data[rows.start * row_bytes..rows.end * row_bytes];
                if *float_type == self.float_type {
                    return Cow::Borrowed(bytes);
                }
                Cow::Owned(cast(bytes, *float_type, self.float_type))
            }
            Stored::Packed(matrix) => Cow::Owned(dequantize(&matrix.slice_rows(rows), self.float_type)),
        }
    }

    /// Packs some rows.
    pub fn pack(&self, rows: Range<usize>, packing: Packing, recipe: &Recipe) -> Result<PackedMatrix, Error> {
        let bytes = self.rows(rows.clone());
        let options = QuantizeOptions {
            packing,
            encoder: recipe.encoder,
            scale_type: self.float_type,
            allow_non_finite: recipe.allow_nonfinite,
        };
        let matrix = FloatMatrix::new(rows.len(), self.cols, self.float_type, &bytes);
        let packed = matrix.and_then(|matrix| quantize_with(matrix, options));
        packed.map_err(|error| match error {
            FormatError::NonFinite { row, col, value } => self.non_finite(rows.start + row, col, value),
            other => Error::Weight {
                tensor: self.name.to_owned(),
                what: other.to_string(),
            },
        })
    }

    /// Refuses some rows if one of their values is NaN or infinite.
    pub fn check_finite(&self, rows: Range<usize>) -> Result<(), Error> {
        let bytes = self.rows(rows.clone());
        let matrix = FloatMatrix::new(rows.len(), self.cols, self.float_type, &bytes);
        let matrix = matrix.map_err(|error| Error::Weight {
            tensor: self.name.to_owned(),
            what: error.to_string(),
        })?;
        first_non_finite(matrix).map_or(Ok(()), |(row, col, value)| {
            Err(self.non_finite(rows.start + row, col, value))
        })
    }

    fn non_finite(&self, row: usize, col: usize, value: f32) -> Error {
        let tensor = self.name.to_owned();
        match self.original(row, col) {
            original if original.is_finite() => Error::Overflow {
                tensor,
                value: original,
                row,
                col,
                float_type: type_name(self.float_type),
            },
            _ => Error::NonFinite {
                tensor,
                value,
                row,
                col,
            },
        }
    }

    /// One value before any cast.
    fn original(&self, row: usize, col: usize) -> f32 {
        let (row, col) = self
            .view
            .map_or((row, col), |view| view.stored_place(row, col, self.stored_cols));
        match &self.stored {
            Stored::Plain { float_type, data } => {
                let size = float_type.size_bytes();
                let mut value = [0.0];
                float_type.decode(&data[(row * self.stored_cols + col) * size..][..size], &mut value);
                value[0]
            }
            Stored::Packed(matrix) => {
                let mut values = vec![0.0; self.stored_cols];
                matrix.dequantize_row(row, &mut values);
                values[col]
            }
        }
    }
}

/// The name of a float type in config.json and on the command line.
pub(crate) fn type_name(float_type: FloatType) -> &'static str {
    match float_type {
        FloatType::F32 => "float32",
        FloatType::F16 => "float16",
        FloatType::BF16 => "bfloat16",
    }
}

fn float_type(name: &str, tensor: &Tensor) -> Result<FloatType, Error> {
    tensor.dtype.float_type().ok_or_else(|| {
        let what = format!("expected F32, F16 or BF16 values, found {}", tensor.dtype);
        Error::Weight {
            tensor: name.to_owned(),
            what,
        }
    })
}

fn rows_and_cols(shape: &[usize]) -> (usize, usize) {
    shape
        .split_last()
        .map_or((1, 1), |(cols, leading)| (leading.iter().product(), *cols))
}

/// Values of one type as values of another, rounded to nearest even.
fn cast(bytes: &[u8], from: FloatType, to: FloatType) -> Vec<u8> {
    const BLOCK: usize = 4096;
    let count = bytes.len() / from.size_bytes();
    let mut cast = vec![0; count * to.size_bytes()];
    let mut values = [0.0; BLOCK];
    let blocks = bytes
        .chunks(BLOCK * from.size_bytes())
        .zip(cast.chunks_mut(BLOCK * to.size_bytes()));
    for (source, target) in blocks {
        let values = &mut values[..source.len() / from.size_bytes()];
        from.decode(source, values);
        to.encode(values, target);
    }
    cast
}
