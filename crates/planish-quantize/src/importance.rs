//! How much the error of each column counts, told from the weights alone: squares S_j of column j, summed over rows ->
//! `max(1, min(CUT * mean(S) / S_j, MOST))^2`. // (cols)
//!
//! Some models have a few inputs hundreds of times larger than the rest, and have learned weights for them that are as much smaller.
//! The error of such a weight is multiplied by its input, so a column of unusually small weights must be met closely. Other columns
//! say nothing of their inputs, and few rows say nothing of columns.

use planish_format::{FloatType, memory};
use rayon::prelude::*;

/// Columns with less than this share of the mean square count more.
const CUT: f64 = 0.25;
/// The root of what a column counts at most: one of zeros should not decide over a group.
const MOST: f64 = 100.0;
/// Rows below which the size of columns is chance.
const LEAST_ROWS: usize = 64;
/// Rows that are summed up by one thread: fixed, so that sums do not depend on the number of threads.
const BLOCK_ROWS: usize = 64;

/// What the memory is for.
const WHAT: &str = "the importance of columns";

/// Sums of the squares of columns, over rows that come in pieces.
pub(crate) struct ColumnSquares {
    squares: Vec<f64>, // (cols)
    rows: usize,
}

impl ColumnSquares {
    pub fn new(cols: usize) -> ColumnSquares {
        ColumnSquares {
            squares: memory::filled(WHAT, cols, 0.0),
            rows: 0,
        }
    }

    /// Counts rows of little-endian values.
    pub fn add(&mut self, float_type: FloatType, rows: &[u8]) {
        let cols = self.squares.len();
        let block_bytes = BLOCK_ROWS * cols * float_type.size_bytes();
        if block_bytes == 0 {
            return;
        }
        let of_block = |block: &[u8]| {
            let mut values = memory::filled(WHAT, block.len() / float_type.size_bytes(), 0.0);
            float_type.decode(block, &mut values);
            let mut squares = memory::filled(WHAT, cols, 0.0);
            for row in values.chunks_exact(cols) {
                add_all(&mut squares, row.iter().map(|value| f64::from(value * value)));
            }
            squares
        };
        let blocks: Vec<Vec<f64>> = rows.par_chunks(block_bytes).map(of_block).collect();
        for block in blocks {
            add_all(&mut self.squares, block.into_iter());
        }
        self.rows += rows.len() / (cols * float_type.size_bytes());
    }

    /// The importance of each column.
    pub fn importance(&self) -> Vec<f32> {
        if self.rows < LEAST_ROWS {
            return vec![1.0; self.squares.len()];
        }
        let mean = self.squares.iter().sum::<f64>() / self.squares.len().max(1) as f64;
        let of_column = |&square: &f64| {
            // Not a number where all weights are 0, or some are not finite: then all columns count alike.
            let excess = CUT * mean / square;
            let excess = if excess > 1.0 { excess.min(MOST) } else { 1.0 };
            (excess * excess) as f32
        };
        self.squares.iter().map(of_column).collect()
    }
}

fn add_all(sums: &mut [f64], values: impl Iterator<Item = f64>) {
    for (sum, value) in sums.iter_mut().zip(values) {
        *sum += value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rows: &[[f32; 4]], rows_at_once: usize) -> Vec<f32> {
        let mut squares = ColumnSquares::new(4);
        for rows in rows.chunks(rows_at_once) {
            let bytes: Vec<u8> = rows.iter().flatten().flat_map(|value| value.to_le_bytes()).collect();
            squares.add(FloatType::F32, &bytes);
        }
        squares.importance()
    }

    #[test]
    fn only_columns_far_below_the_mean_count_more() {
        // Squares 16, 9, 6.5 and 0.5: the mean is 8, a quarter of it 2.
        let row = [4.0, -3.0, 6.5f32.sqrt(), -0.5f32.sqrt()];
        let found = of(&[row; 64], 64);
        assert_eq!(found[..3], [1.0; 3]);
        assert!((found[3] - 16.0).abs() < 1e-4, "{found:?}");
    }

    #[test]
    fn pieces_do_not_matter() {
        let rows: Vec<[f32; 4]> = (0..1000)
            .map(|row| [row as f32 * 1e-3, 1.0, 1e-2, (row % 7) as f32 * 1e-4])
            .collect();
        let blocks = BLOCK_ROWS * 3;
        assert_eq!(of(&rows, blocks), of(&rows, 1000));
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert_eq!(of(&[[0.0; 4]; 64], 64), [1.0; 4]);
        assert_eq!(of(&[[1.0, 1.0, 1.0, 0.0]; 64], 64), [1.0, 1.0, 1.0, 1e4]);
        assert_eq!(of(&[[1.0, 1.0, 1.0, f32::NAN]; 64], 64), [1.0; 4]);
        assert_eq!(of(&[], 1), [1.0; 4]);
    }

    #[test]
    fn few_rows_tell_nothing() {
        assert_eq!(of(&[[1.0, 1.0, 1.0, 1e-3]; 63], 64), [1.0; 4]);
    }
}
