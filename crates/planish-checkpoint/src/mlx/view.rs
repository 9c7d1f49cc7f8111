//! Which values of a matrix another tensor is made of, and in what order.

use std::ops::Range;

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
    /// Whether each block is turned over: its columns become rows.
    pub turned: bool,
    /// Added to every value.
    pub add: f32,
}

impl View {
    /// All of a matrix with this many rows.
    pub fn whole(rows: usize) -> View {
        View {
            block_rows: rows,
            rows: 0..rows,
            first_col: 0,
            col_step: 1,
            turned: false,
            add: 0.0,
        }
    }

    /// Whether the values are all of a matrix with this many rows, in their order.
    pub fn is_whole(&self, rows: usize) -> bool {
        self.is_rows() && (self.rows.len() == self.block_rows || rows == 0)
    }

    /// Whether whole rows are taken as they are, so that packed rows can be moved.
    pub fn is_rows(&self) -> bool {
        self.first_col == 0 && self.col_step == 1 && !self.turned && self.add == 0.0
    }

    /// Rows and columns of the result for a matrix of `rows` and `cols`.
    pub fn size(&self, rows: usize, cols: usize) -> (usize, usize) {
        let blocks = rows.checked_div(self.block_rows).unwrap_or(0);
        let taken = cols.saturating_sub(self.first_col).div_ceil(self.col_step);
        match self.turned {
            true => (blocks * taken, self.rows.len()),
            false => (blocks * self.rows.len(), taken),
        }
    }

    /// The row of the matrix that a row of the result is, unless blocks are turned over.
    pub fn stored_row(&self, row: usize) -> usize {
        let taken = self.rows.len().max(1);
        row / taken * self.block_rows + self.rows.start + row % taken
    }

    /// Row and column in a matrix of `cols` columns of a value of the result.
    pub fn stored_place(&self, row: usize, col: usize, cols: usize) -> (usize, usize) {
        let column = |index: usize| self.first_col + index * self.col_step;
        if !self.turned {
            return (self.stored_row(row), column(col));
        }
        let taken = cols.saturating_sub(self.first_col).div_ceil(self.col_step).max(1);
        (
            row / taken * self.block_rows + self.rows.start + col,
            column(row % taken),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two blocks of three rows of four columns, valued 0 to 23; the result as (rows, cols, values).
    fn taken(view: &View) -> (usize, usize, Vec<usize>) {
        let (rows, cols) = view.size(6, 4);
        let places = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
        let values = places.map(|(row, col)| view.stored_place(row, col, 4));
        (rows, cols, values.map(|(row, col)| row * 4 + col).collect())
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
    fn every_other_column_turned() {
        let view = View {
            block_rows: 3,
            rows: 0..3,
            first_col: 1,
            col_step: 2,
            turned: true,
            ..View::whole(6)
        };
        assert_eq!(taken(&view), (4, 3, vec![1, 5, 9, 3, 7, 11, 13, 17, 21, 15, 19, 23]));
    }
}
