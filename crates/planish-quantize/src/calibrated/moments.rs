//! Sums of products of a layer's inputs: rows of inputs come in pieces -> H and, where the inputs of the model as it was are known,
//! the mean of `(a' - a) a^T`.

use planish_format::{TILE_ROWS, add_products, memory};
use rayon::prelude::*;

/// Rows that are summed up in f32 before they are added to the others: fixed, so that sums do not depend on threads.
const DEPTH: usize = 128;

/// Sums over the rows that were seen.
#[derive(Clone, Debug)]
pub struct Moments {
    cols: usize,
    rows: u64,
    /// Sums of `a a^T`, from the first column of each tile on. // (cols, cols)
    squares: Vec<f32>,
    /// Sums of `(a' - a) a^T`; empty where only a is known. // (cols, cols)
    drift: Vec<f32>,
}

impl Moments {
    /// Nothing seen of inputs of `cols` columns, a multiple of 8.
    ///
    /// # Panics
    /// If it is none.
    pub fn new(cols: usize) -> Moments {
        assert!(cols.is_multiple_of(8), "columns by eight");
        Moments {
            cols,
            rows: 0,
            squares: memory::filled("sums of products", cols * cols, 0.0),
            drift: Vec::new(),
        }
    }

    /// Rows that were seen.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Columns of the inputs.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Adds rows: `inputs` of the model as it is quantized so far and, the same rows, of the model as it was. Either all calls give
    /// these, or none. // (rows, cols)
    ///
    /// # Panics
    /// If there are not whole rows, or not as many of both.
    pub fn add(&mut self, inputs: &[f32], original: Option<&[f32]>) {
        let cols = self.cols;
        assert!(inputs.len().is_multiple_of(cols.max(1)), "whole rows");
        add(&mut self.squares, cols, inputs, inputs, true);
        if let Some(original) = original {
            assert_eq!(original.len(), inputs.len(), "the same rows of both");
            memory::resize("sums of products", &mut self.drift, cols * cols, 0.0);
            let lost: Vec<f32> = original.iter().zip(inputs).map(|(a, b)| a - b).collect();
            add(&mut self.drift, cols, &lost, inputs, false);
        }
        self.rows += (inputs.len() / cols.max(1)) as u64;
    }

    /// H, the mean of `a a^T`, and the mean of `(a' - a) a^T`, where a' was given. // (cols, cols)
    pub(super) fn means(self) -> (Vec<f32>, Option<Vec<f32>>) {
        let Moments {
            cols,
            rows,
            mut squares,
            mut drift,
        } = self;
        let mean = |sum: &mut f32| *sum = (f64::from(*sum) / rows as f64) as f32;
        squares.par_iter_mut().for_each(mean);
        drift.par_iter_mut().for_each(mean);
        for row in 0..cols {
            for col in 0..row {
                squares[row * cols + col] = squares[col * cols + row];
            }
        }
        (squares, (!drift.is_empty()).then_some(drift))
    }
}

/// `sums[i][j] += sum over rows of left[row][i] * right[row][j]`; of a symmetric one only where j is not before the tile of i.
fn add(sums: &mut [f32], cols: usize, left: &[f32], right: &[f32], symmetric: bool) {
    for (left, right) in left.chunks(DEPTH * cols).zip(right.chunks(DEPTH * cols)) {
        let depth = left.len() / cols;
        let tiles = sums.par_chunks_exact_mut(TILE_ROWS * cols).enumerate();
        tiles.for_each(|(tile, sums)| {
            let row = tile * TILE_ROWS;
            let first = if symmetric { row / 8 * 8 } else { 0 };
            let right = (&right[first..], cols);
            add_products(
                (&left[row..], cols),
                right,
                (&mut sums[first..], cols),
                (depth, cols - first),
            );
        });
    }
}
