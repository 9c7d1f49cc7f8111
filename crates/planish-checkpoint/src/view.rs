//! Which values of a stored matrix a tensor is made of, and in what order.
//!
//! MLX, GGUF and Hugging Face name and arrange the same tensors differently. Each way from one to the other is a list of
//! views of stored tensors; [`View::inverse`] is the way back.

use std::borrow::Cow;
use std::ops::Range;

use planish_format::{FloatType, memory};

use crate::Tensor;
use crate::assemble::joined;

/// A choice of rows and columns of a matrix (rows, cols) that is seen as blocks of rows (one expert or head each).
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Rows of a block; divides the rows of the matrix.
    pub block_rows: usize,
    /// The rows taken of each block.
    pub rows: Range<usize>,
    /// The first column taken.
    pub first_col: usize,
    /// The distance from one column to the next.
    pub col_step: usize,
    /// Whether each block is transposed: its columns become rows.
    pub transposed: bool,
    /// Added to every value.
    pub add: f32,
}

impl View {
    /// All of a matrix with this many rows.
    pub fn whole(rows: usize) -> View {
        View::of_blocks(rows, 0..rows)
    }

    /// Some rows of each block.
    pub fn of_blocks(block_rows: usize, rows: Range<usize>) -> View {
        View {
            block_rows,
            rows,
            first_col: 0,
            col_step: 1,
            transposed: false,
            add: 0.0,
        }
    }

    /// The transpose of a matrix with this many rows.
    pub fn transpose(rows: usize) -> View {
        View {
            transposed: true,
            ..View::whole(rows)
        }
    }

    /// Whether the values are all of a matrix with this many rows, in their order.
    pub fn is_whole(&self, rows: usize) -> bool {
        self.is_rows() && (self.rows.len() == self.block_rows || rows == 0)
    }

    /// Whether whole rows are taken as they are, so that packed rows can be moved.
    pub fn is_rows(&self) -> bool {
        self.takes_all_columns() && !self.transposed && self.add == 0.0
    }

    fn takes_all_columns(&self) -> bool {
        self.first_col == 0 && self.col_step == 1
    }

    /// Rows and columns of the result for a matrix of `rows` and `cols`.
    pub fn size(&self, rows: usize, cols: usize) -> (usize, usize) {
        let (block_rows, block_cols) = self.block_size(cols);
        (self.blocks(rows) * block_rows, block_cols)
    }

    /// Rows and columns that a block becomes.
    pub(crate) fn block_size(&self, cols: usize) -> (usize, usize) {
        let taken = cols.saturating_sub(self.first_col).div_ceil(self.col_step);
        match self.transposed {
            true => (taken, self.rows.len()),
            false => (self.rows.len(), taken),
        }
    }

    /// How many blocks a matrix with this many rows has.
    pub fn blocks(&self, rows: usize) -> usize {
        rows.checked_div(self.block_rows).unwrap_or(0)
    }

    /// The stored rows that are taken of a block.
    pub fn block(&self, index: usize) -> Range<usize> {
        let start = index * self.block_rows;
        start + self.rows.start..start + self.rows.end
    }

    /// The stored rows, where they are taken as they are and lie side by side.
    pub(crate) fn run(&self, rows: usize) -> Option<Range<usize>> {
        match () {
            () if self.is_whole(rows) => Some(0..rows),
            () if self.is_rows() && self.blocks(rows) == 1 => Some(self.rows.clone()),
            () => None,
        }
    }

    /// Row and column in a matrix of `cols` columns of a value of the result.
    pub fn stored_place(&self, row: usize, col: usize, cols: usize) -> (usize, usize) {
        let block_rows = self.block_size(cols).0.max(1);
        let (block, within) = (row / block_rows, row % block_rows);
        let (row, col) = if self.transposed { (col, within) } else { (within, col) };
        (self.block(block).start + row, self.column(col))
    }

    fn column(&self, index: usize) -> usize {
        self.first_col + index * self.col_step
    }

    /// The view that takes the same values back out of the result, for a matrix of `cols` columns. `None` if the result lacks
    /// some of the columns.
    pub fn inverse(&self, cols: usize) -> Option<View> {
        let block_rows = self.block_size(cols).0;
        self.takes_all_columns().then_some(View {
            block_rows,
            rows: 0..block_rows,
            add: -self.add,
            ..*self
        })
    }

    /// Some rows of the result, in bytes, nothing added. `stored` gives rows of a matrix of `cols` values of `size` bytes.
    pub fn take<'a>(
        &self,
        rows: Range<usize>,
        cols: usize,
        size: usize,
        stored: impl Fn(Range<usize>) -> Cow<'a, [u8]>,
    ) -> Cow<'a, [u8]> {
        let (block_rows, block_cols) = self.block_size(cols);
        if rows.is_empty() || block_cols == 0 {
            return Cow::Borrowed(&[]);
        }
        let in_one_block = rows.start / block_rows == (rows.end - 1) / block_rows;
        if self.takes_all_columns() && !self.transposed && (in_one_block || block_rows == self.block_rows) {
            let start = self.stored_place(rows.start, 0, cols).0;
            return stored(start..start + rows.len());
        }
        let row_bytes = cols * size;
        let mut taken = memory::with_room("weights", rows.len() * block_cols * size);
        let mut next = rows.start;
        while next < rows.end {
            let (block, first) = (next / block_rows, next % block_rows);
            let last = (first + rows.end - next).min(block_rows);
            let place = self.block(block);
            if self.transposed {
                let columns = (first..last).map(|index| self.column(index));
                transpose_columns(&stored(place), row_bytes, size, columns, &mut taken);
            } else {
                for row in stored(place.start + first..place.start + last).chunks_exact(row_bytes) {
                    let values = (0..block_cols).map(|index| self.column(index) * size);
                    match self.takes_all_columns() {
                        true => taken.extend_from_slice(row),
                        false => values.for_each(|place| taken.extend_from_slice(&row[place..place + size])),
                    }
                }
            }
            next += last - first;
        }
        Cow::Owned(taken)
    }

    /// The values with what the view adds to each.
    pub fn added<'a>(&self, bytes: Cow<'a, [u8]>, float_type: FloatType) -> Cow<'a, [u8]> {
        if self.add == 0.0 {
            return bytes;
        }
        let mut values = memory::filled("weights", bytes.len() / float_type.size_bytes(), 0.0);
        float_type.decode(&bytes, &mut values);
        values.iter_mut().for_each(|value| *value += self.add);
        let mut sums = memory::with_room("weights", bytes.len());
        sums.extend_from_slice(&bytes);
        float_type.encode(&values, &mut sums);
        Cow::Owned(sums)
    }

    /// A plain tensor of this shape out of another.
    pub fn apply(&self, tensor: Tensor, shape: &[usize]) -> Tensor {
        let dtype = tensor.dtype;
        joined(&[(tensor, self)], dtype, shape)
    }
}

/// Columns of a matrix as rows: of each row of `row_bytes` the values of `size` bytes at these columns.
/// // (rows, cols) to (columns, rows)
pub fn transpose_columns(
    matrix: &[u8],
    row_bytes: usize,
    size: usize,
    columns: impl Iterator<Item = usize>,
    transposed: &mut Vec<u8>,
) {
    for column in columns {
        let values = matrix.chunks_exact(row_bytes).map(|row| &row[column * size..][..size]);
        values.for_each(|value| transposed.extend_from_slice(value));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Dtype;

    /// Two blocks of three rows of four columns, valued 0 to 23; the result as (rows, cols, values).
    fn taken(view: &View) -> (usize, usize, Vec<usize>) {
        let (rows, cols) = view.size(6, 4);
        let places = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
        let values = places.map(|(row, col)| view.stored_place(row, col, 4));
        (rows, cols, values.map(|(row, col)| row * 4 + col).collect())
    }

    pub(crate) fn numbers(shape: &[usize]) -> Tensor {
        let values = (0..shape.iter().product()).map(|value: usize| value as f32);
        Tensor {
            dtype: Dtype::F32,
            shape: shape.to_vec(),
            data: values.flat_map(f32::to_le_bytes).collect::<Vec<u8>>().into(),
        }
    }

    pub(crate) fn values(tensor: &Tensor) -> Vec<f32> {
        let words = tensor.data.as_chunks::<4>().0;
        words.iter().map(|word| f32::from_le_bytes(*word)).collect()
    }

    #[test]
    fn rows_of_each_block() {
        let view = View {
            block_rows: 3,
            rows: 1..3,
            ..View::whole(6)
        };
        assert!(view.is_rows() && !view.is_whole(6));
        let expected = (4..12).chain(16..24).collect();
        assert_eq!(taken(&view), (4, 4, expected));
    }

    #[test]
    fn every_other_column_transposed() {
        let view = View {
            block_rows: 3,
            rows: 0..3,
            first_col: 1,
            col_step: 2,
            transposed: true,
            ..View::whole(6)
        };
        assert_eq!(taken(&view), (4, 3, vec![1, 5, 9, 3, 7, 11, 13, 17, 21, 15, 19, 23]));
    }

    /// Every run of rows of a view holds the values that [`View::stored_place`] names, plus what is added.
    #[test]
    fn bytes_are_those_of_the_places() {
        let tensor = numbers(&[6, 4]);
        for (first_col, col_step) in [(0, 1), (1, 1), (1, 2)] {
            for (block_rows, rows) in [(6, 0..6), (3, 0..3), (3, 1..3), (6, 2..5), (3, 1..1)] {
                for transposed in [false, true] {
                    let view = View {
                        block_rows,
                        rows: rows.clone(),
                        first_col,
                        col_step,
                        transposed,
                        add: 0.5,
                    };
                    let (count, cols, expected) = taken(&view);
                    let expected: Vec<f32> = expected.iter().map(|value| *value as f32 + 0.5).collect();
                    assert_eq!(
                        values(&view.apply(tensor.clone(), &[count, cols])),
                        expected,
                        "{view:?}"
                    );
                    for start in 0..count {
                        let stored = |rows: Range<usize>| Cow::Borrowed(&tensor.data[rows.start * 16..rows.end * 16]);
                        let bytes = view.added(view.take(start..count, 4, 4, stored), FloatType::F32);
                        let found = Tensor {
                            data: bytes.into_owned().into(),
                            ..tensor.clone()
                        };
                        assert_eq!(values(&found), expected[start * cols..], "{view:?} from row {start}");
                    }
                }
            }
        }
    }
}
