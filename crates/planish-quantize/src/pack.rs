//! One weight, or some of its rows, to codes, scales and biases.

use std::borrow::Cow;
use std::ops::Range;

use planish_checkpoint::{Mode, View, Weight, cast};
use planish_format::{
    FloatCodes, FloatMatrix, FloatMode, FloatType, FormatError, PackedMatrix, Packing, QuantizeOptions, Rule,
    dequantize, first_non_finite, memory, quantize_floats, quantize_with,
};

use crate::importance::ColumnSquares;
use crate::transfer::CHUNK_WEIGHTS;
use crate::{Error, Method, Recipe};

/// The type that the floats of a packed weight are given without a wish: that of its scales, and bfloat16 where these are f32
/// only to hold the products of GGUF's two-level scales.
pub(crate) fn default_type(scale_type: FloatType) -> FloatType {
    match scale_type {
        FloatType::F32 => FloatType::BF16,
        own => own,
    }
}

/// Packs the weight called `name` with `packing`, the rule and the types that `recipe` asks for. A plain weight of more than
/// two dimensions counts as the matrix of all its rows; a packed one (from a GGUF file) is decoded first. What is known of inputs is
/// not used.
///
/// # Errors
/// NaN or infinity unless the recipe allows them; a shape or type that cannot be packed.
pub fn pack_weight(name: &str, weight: &Weight, packing: Packing, recipe: &Recipe) -> Result<PackedMatrix, Error> {
    let floats = Floats::new(name, weight, recipe.dtype)?;
    // The inputs that are known are those of whole entries, and this may be a piece of one.
    let importance = match &recipe.method {
        Method::Peer(_) => None,
        Method::Search | Method::Weighted(_) | Method::Chosen(_) => Some(floats.told_by_columns(|| ())),
    };
    floats.pack(0..floats.rows, packing, recipe, importance.as_deref())
}

/// A weight, or a view of it, as rows of floats of one type, whatever it is stored as.
pub(crate) struct Floats<'a> {
    name: &'a str,
    stored: Stored<'a>,
    /// Columns of the stored weight.
    stored_cols: usize,
    view: View,
    /// Product of all sizes but the last.
    pub rows: usize,
    pub cols: usize,
    /// Write the largest value of a type in place of a larger one.
    clamp: bool,
    /// The type of the rows that [`Floats::rows`] gives.
    pub float_type: FloatType,
}

/// How much the error of each column counts.
pub(crate) struct Importance {
    /// Of equal runs of rows; none where a method does not ask. // (cols) each
    parts: Vec<Vec<f32>>,
}

impl Importance {
    fn unused() -> Importance {
        Importance { parts: Vec::new() }
    }

    fn alike(columns: Vec<f32>) -> Importance {
        Importance { parts: vec![columns] }
    }
}

enum Stored<'a> {
    Plain { float_type: FloatType, data: &'a [u8] },
    Packed(&'a PackedMatrix),
}

impl<'a> Floats<'a> {
    /// Views `weight` as floats of type `dtype`; `None` means its own type, and [`default_type`] for a packed one.
    pub fn new(name: &'a str, weight: &'a Weight, dtype: Option<FloatType>) -> Result<Floats<'a>, Error> {
        let (stored, own_type, (rows, cols)) = match weight {
            Weight::Plain(tensor) => {
                let float_type = tensor.dtype.float_type().ok_or_else(|| Error::Weight {
                    tensor: name.to_owned(),
                    what: format!("expected F32, F16 or BF16 values, found {}", tensor.dtype),
                })?;
                let data = &tensor.data;
                (Stored::Plain { float_type, data }, float_type, tensor.rows_cols())
            }
            Weight::Packed(matrix) => {
                let size = (matrix.rows, matrix.cols);
                (Stored::Packed(matrix), default_type(matrix.scale_type), size)
            }
        };
        Ok(Floats {
            name,
            stored,
            stored_cols: cols,
            view: View::whole(rows),
            rows,
            cols,
            clamp: false,
            float_type: dtype.unwrap_or(own_type),
        })
    }

    /// With the largest value of a type in place of a larger one, where asked.
    pub fn clamped(self, clamp: bool) -> Floats<'a> {
        Floats { clamp, ..self }
    }

    /// Only the values that a view takes of the whole.
    pub fn viewed(self, view: &View) -> Floats<'a> {
        let (rows, cols) = view.size(self.rows, self.cols);
        Floats {
            view: view.clone(),
            rows,
            cols,
            ..self
        }
    }

    /// Some rows as little-endian values of `self.float_type`. // (rows.len(), cols)
    pub fn rows(&self, rows: Range<usize>) -> Cow<'a, [u8]> {
        let size = self.float_type.size_bytes();
        let taken = self
            .view
            .take(rows, self.stored_cols, size, |rows| self.stored_rows(rows));
        self.view.added(taken, self.float_type)
    }

    /// As [`Floats::rows`], no finite value having become infinite.
    ///
    /// # Errors
    /// [`Error::Overflow`], unless such values are clamped.
    pub fn narrowed(&self, rows: Range<usize>) -> Result<Cow<'a, [u8]>, Error> {
        let mut bytes = self.rows(rows.clone());
        if !self.may_overflow() || self.first_non_finite(rows.len(), &bytes)?.is_none() {
            return Ok(bytes);
        }
        let size = self.float_type.size_bytes();
        let mut values = memory::filled("weights", self.cols, 0.0);
        for (index, row) in bytes.to_mut().chunks_mut((self.cols * size).max(1)).enumerate() {
            self.float_type.decode(row, &mut values);
            for (col, value) in values.iter_mut().enumerate() {
                let lost = !value.is_finite() && self.is_finite(rows.start + index, col);
                match lost {
                    true if self.clamp => *value = self.float_type.largest().copysign(*value),
                    true => return Err(self.non_finite(rows.start + index, col, *value)),
                    false => {}
                }
            }
            self.float_type.encode(&values, row);
        }
        Ok(bytes)
    }

    /// Whether the stored values may be too large for the type.
    fn may_overflow(&self) -> bool {
        match &self.stored {
            Stored::Plain { float_type, .. } => float_type.largest() > self.float_type.largest(),
            Stored::Packed(_) => true,
        }
    }

    /// Whether a stored value is a number, be it one beyond f32.
    fn is_finite(&self, row: usize, col: usize) -> bool {
        match &self.stored {
            Stored::Plain { .. } => self.original(row, col).is_finite(),
            Stored::Packed(matrix) => {
                let (row, col) = self.view.stored_place(row, col, self.stored_cols);
                let (groups, size) = (matrix.cols / matrix.packing.group(), matrix.scale_type.size_bytes());
                let at = (row * groups + col / matrix.packing.group()) * size;
                [&matrix.scales, &matrix.biases].into_iter().all(|values| {
                    let mut value = [0.0];
                    matrix.scale_type.decode(&values[at..][..size], &mut value);
                    value[0].is_finite()
                })
            }
        }
    }

    /// The place and value of the first that is NaN or infinite. // (rows, cols)
    fn first_non_finite(&self, rows: usize, bytes: &[u8]) -> Result<Option<(usize, usize, f32)>, Error> {
        let matrix = FloatMatrix::new(rows, self.cols, self.float_type, bytes);
        matrix.map(first_non_finite).map_err(|error| Error::Weight {
            tensor: self.name.to_owned(),
            what: error.to_string(),
        })
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

    /// Ranges of rows of about `weights` weights each.
    pub fn chunks(&self, weights: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (rows, step) = (self.rows, (weights / self.cols.max(1)).max(1));
        (0..rows)
            .step_by(step)
            .map(move |start| start..(start + step).min(rows))
    }

    /// How much the error of each column counts for a method that asks for it. Of [`Method::Search`] all rows are read; `on_read` is
    /// called after each piece of them.
    pub fn importance(&self, method: &Method, on_read: impl FnMut()) -> Importance {
        match method {
            Method::Peer(_) => Importance::unused(),
            Method::Search | Method::Chosen(_) => Importance::alike(self.told_by_columns(on_read)),
            Method::Weighted(inputs) => {
                let parts = inputs.of(self.name, self.cols);
                if parts.is_empty() || !self.rows.is_multiple_of(parts.len()) {
                    return Importance::alike(self.told_by_columns(on_read));
                }
                let unseen = match parts.iter().any(Option::is_none) {
                    true => self.told_by_columns(on_read),
                    false => Vec::new(),
                };
                let of_part = |part: Option<Vec<f32>>| part.unwrap_or_else(|| unseen.clone());
                Importance {
                    parts: parts.into_iter().map(of_part).collect(),
                }
            }
        }
    }

    /// By the formula of importance.rs.
    fn told_by_columns(&self, on_read: impl FnMut()) -> Vec<f32> {
        self.told_by_columns_of(0..self.rows, on_read)
    }

    /// The same of some rows.
    pub fn told_by_columns_of(&self, rows: Range<usize>, mut on_read: impl FnMut()) -> Vec<f32> {
        let mut squares = ColumnSquares::new(self.cols);
        let step = (CHUNK_WEIGHTS / self.cols.max(1)).max(1);
        for start in rows.clone().step_by(step) {
            squares.add(self.float_type, &self.rows(start..(start + step).min(rows.end)));
            on_read();
        }
        squares.importance()
    }

    /// Ranges of rows of about `weights` weights each, in which columns are equally important, with their importance.
    pub fn important_chunks<'b>(
        &self,
        weights: usize,
        importance: &'b Importance,
    ) -> impl Iterator<Item = (Range<usize>, Option<&'b [f32]>)> + use<'b> {
        let parts = importance.parts.len().max(1);
        let (part_rows, step) = (self.rows / parts, (weights / self.cols.max(1)).max(1));
        (0..parts).flat_map(move |part| {
            let (start, end) = (part * part_rows, (part + 1) * part_rows);
            let columns = importance.parts.get(part).map(Vec::as_slice);
            (start..end)
                .step_by(step)
                .map(move |start| (start..(start + step).min(end), columns))
        })
    }

    /// Packs some rows. `importance` is that of their columns.
    pub fn pack(
        &self,
        rows: Range<usize>,
        packing: Packing,
        recipe: &Recipe,
        importance: Option<&[f32]>,
    ) -> Result<PackedMatrix, Error> {
        let bytes = match self.clamp {
            true => self.narrowed(rows.clone())?,
            false => self.rows(rows.clone()),
        };
        let options = QuantizeOptions {
            packing,
            rule: recipe.method.rule(importance),
            scale_type: self.float_type,
            allow_non_finite: recipe.allow_non_finite,
        };
        let matrix = FloatMatrix::new(rows.len(), self.cols, self.float_type, &bytes);
        let packed = match matrix {
            Ok(matrix) => packed(matrix, options, recipe)?,
            Err(error) => Err(error),
        };
        let packed = packed.map_err(|error| match error {
            FormatError::NonFinite { row, col, value } => self.non_finite(rows.start + row, col, value),
            other => Error::Weight {
                tensor: self.name.to_owned(),
                what: other.to_string(),
            },
        })?;
        match recipe.allow_non_finite {
            true => Ok(packed),
            false => self.check_scales(packed, rows.start),
        }
    }

    /// Packs some rows as floats of a mode of MLX.
    pub fn pack_floats(&self, rows: Range<usize>, mode: FloatMode) -> Result<FloatCodes, Error> {
        let bytes = match self.clamp {
            true => self.narrowed(rows.clone())?,
            false => self.rows(rows.clone()),
        };
        let matrix = FloatMatrix::new(rows.len(), self.cols, self.float_type, &bytes);
        if !self.clamp {
            self.check_mode(&bytes, rows.start, mode)?;
        }
        matrix
            .and_then(|matrix| quantize_floats(matrix, mode))
            .map_err(|error| match error {
                FormatError::NonFinite { row, col, value } => self.non_finite(rows.start + row, col, value),
                other => Error::Weight {
                    tensor: self.name.to_owned(),
                    what: other.to_string(),
                },
            })
    }

    /// Refuses finite values beyond the largest scale of a mode, which its rule would make smaller.
    fn check_mode(&self, bytes: &[u8], first_row: usize, mode: FloatMode) -> Result<(), Error> {
        let Some(largest) = mode.largest_weight() else {
            return Ok(());
        };
        let mut values = memory::filled("weights", self.cols, 0.0);
        let row_bytes = (self.cols * self.float_type.size_bytes()).max(1);
        for (row, bytes) in bytes.chunks_exact(row_bytes).enumerate() {
            self.float_type.decode(bytes, &mut values);
            let beyond = |value: &f32| value.is_finite() && value.abs() > largest;
            if let Some(col) = values.iter().position(beyond) {
                return Err(Error::BeyondMode {
                    tensor: self.name.to_owned(),
                    value: values[col],
                    row: first_row + row,
                    col,
                    mode: Mode::of_floats(mode).name(),
                    largest,
                });
            }
        }
        Ok(())
    }

    /// Refuses scales and biases that weights of finite values made infinite: a group spans more than its type.
    fn check_scales(&self, packed: PackedMatrix, first_row: usize) -> Result<PackedMatrix, Error> {
        let (group, float_type) = (packed.packing.group(), packed.scale_type);
        for values in [&packed.scales, &packed.biases] {
            let matrix = FloatMatrix::new(packed.rows, packed.cols / group, float_type, values);
            if let Some((row, index, _)) = matrix.ok().and_then(first_non_finite) {
                let (row, cols) = (first_row + row, index * group..(index + 1) * group);
                let sizes = cols.map(|col| (col, self.original(row, col)));
                let (col, value) = sizes.fold((0, 0.0f32), |most, next| match next.1.abs() > most.1.abs() {
                    true => next,
                    false => most,
                });
                return Err(Error::Scale {
                    tensor: self.name.to_owned(),
                    value,
                    row,
                    col,
                    float_type: type_name(float_type),
                });
            }
        }
        Ok(packed)
    }

    /// Refuses some rows if one of their values is NaN or infinite.
    pub fn check_finite(&self, rows: Range<usize>) -> Result<(), Error> {
        let bytes = match self.clamp {
            true => self.narrowed(rows.clone())?,
            false => self.rows(rows.clone()),
        };
        let found = self.first_non_finite(rows.len(), &bytes)?;
        found.map_or(Ok(()), |(row, col, value)| {
            Err(self.non_finite(rows.start + row, col, value))
        })
    }

    fn non_finite(&self, row: usize, col: usize, value: f32) -> Error {
        let tensor = self.name.to_owned();
        match self.is_finite(row, col) {
            true => Error::Overflow {
                tensor,
                value: self.original(row, col),
                row,
                col,
                float_type: type_name(self.float_type),
            },
            false => Error::NonFinite {
                tensor,
                value,
                row,
                col,
            },
        }
    }

    /// One value before any cast.
    fn original(&self, row: usize, col: usize) -> f32 {
        let (row, col) = self.view.stored_place(row, col, self.stored_cols);
        match &self.stored {
            Stored::Plain { float_type, data } => {
                let size = float_type.size_bytes();
                let mut value = [0.0];
                float_type.decode(&data[(row * self.stored_cols + col) * size..][..size], &mut value);
                value[0]
            }
            Stored::Packed(matrix) => {
                let mut values = memory::filled("weights", self.stored_cols, 0.0);
                matrix.dequantize_row(row, &mut values);
                values[col]
            }
        }
    }
}

/// By the device of the recipe, where that can, else by the processor: the same bytes.
fn packed(
    matrix: FloatMatrix,
    options: QuantizeOptions,
    recipe: &Recipe,
) -> Result<Result<PackedMatrix, FormatError>, Error> {
    let (Some(searcher), Rule::Search { importance }) = (&recipe.searcher, options.rule) else {
        return Ok(quantize_with(matrix, options));
    };
    if !options.allow_non_finite
        && let Some((row, col, value)) = first_non_finite(matrix)
    {
        return Ok(Err(FormatError::NonFinite { row, col, value }));
    }
    let found = searcher.search(matrix, options.packing, options.scale_type, importance);
    Ok(match found.map_err(Error::Device)? {
        Some(packed) => Ok(packed),
        None => quantize_with(matrix, options),
    })
}

/// The name of a float type in config.json and on the command line.
pub(crate) fn type_name(float_type: FloatType) -> &'static str {
    match float_type {
        FloatType::F32 => "float32",
        FloatType::F16 => "float16",
        FloatType::BF16 => "bfloat16",
    }
}
