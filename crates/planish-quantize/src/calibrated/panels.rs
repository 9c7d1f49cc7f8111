//! A few rows of a matrix that are computed side by side, and their products with a square matrix.

use planish_format::{TILE_ROWS, add_products, memory};

/// What the memory is for.
const WHAT: &str = "sums of products";

/// Rows of a panel: tiles of [`TILE_ROWS`].
pub(super) const PANEL_ROWS: usize = 4 * TILE_ROWS;
/// Products that are summed up in f32 before they are added to the others.
const DEPTH: usize = 256;

/// (PANEL_ROWS, cols): rows beyond those that there are are zero.
#[derive(Clone)]
pub(super) struct Panel {
    cols: usize,
    values: Vec<f32>,
}

impl Panel {
    pub fn zeros(cols: usize) -> Panel {
        Panel {
            cols,
            values: memory::filled(WHAT, PANEL_ROWS * cols, 0.0),
        }
    }

    /// At most [`PANEL_ROWS`] rows.
    pub fn of(rows: &[f32], cols: usize) -> Panel {
        let mut panel = Panel::zeros(cols);
        panel.values[..rows.len()].copy_from_slice(rows);
        panel
    }

    /// All of them. // (PANEL_ROWS, cols)
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..][..self.cols]
    }

    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        &mut self.values[row * self.cols..][..self.cols]
    }

    /// Columns as rows, times a factor. // (cols, PANEL_ROWS)
    fn transposed(&self, factor: f32) -> Vec<f32> {
        let mut values = memory::filled(WHAT, self.values.len(), 0.0);
        for (col, values) in values.chunks_exact_mut(PANEL_ROWS).enumerate() {
            for (row, value) in values.iter_mut().enumerate() {
                *value = factor * self.values[row * self.cols + col];
            }
        }
        values
    }

    /// Adds `factor * left * square` to all rows. // square (cols, cols)
    pub fn add_product(&mut self, left: &Panel, factor: f32, square: &[f32]) {
        let cols = self.cols;
        let left = left.transposed(factor);
        for first in (0..cols).step_by(DEPTH) {
            let depth = DEPTH.min(cols - first);
            self.add_columns(
                &left[first * PANEL_ROWS..],
                (&square[first * cols..], cols),
                depth,
                (0, cols),
            );
        }
    }

    /// Adds `sum over k < depth of left[k][row] * right[k][col]` from column `first` on to `width` columns. // left (depth, PANEL_ROWS)
    pub fn add_columns(&mut self, left: &[f32], right: (&[f32], usize), depth: usize, (first, width): (usize, usize)) {
        if width == 0 {
            return;
        }
        for tile in 0..PANEL_ROWS / TILE_ROWS {
            let left = (&left[tile * TILE_ROWS..], PANEL_ROWS);
            let sums = &mut self.values[tile * TILE_ROWS * self.cols + first..];
            add_products(left, right, (sums, self.cols), (depth, width));
        }
    }
}
