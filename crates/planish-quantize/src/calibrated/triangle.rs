//! Triangular factors of symmetric matrices in f64, by rows: blocks one after another, the rows of each by all threads.

use planish_format::dot_products;
use rayon::prelude::*;

/// Columns of a block.
const BLOCK: usize = 32;
/// Sizes from which on all threads factorize.
const WORTH_SHARING: usize = 256;
/// Rows or columns that are solved for side by side.
const SIDE: usize = 4;

/// A lower triangle: `L L^T` is the matrix that it was made of.
pub(super) struct Lower {
    size: usize,
    values: Vec<f64>, // (size, size); above the diagonal is nothing of use
}

impl Lower {
    /// The factor of a symmetric matrix, of which the lower triangle is read. `None` if it is not positive definite, or holds what is
    /// no number. // (size, size)
    pub fn of(mut values: Vec<f64>, size: usize) -> Option<Lower> {
        for start in (0..size).step_by(BLOCK) {
            let end = (start + BLOCK).min(size);
            let (above, below) = values.split_at_mut(end * size);
            for row in start..end {
                let (before, own) = above.split_at_mut(row * size);
                let own = &mut own[..size];
                reduce(before, own, size, (start, row));
                let square = own[row] - sum(&own[..row], &own[..row]);
                if !(square > 0.0 && square.is_finite()) {
                    return None;
                }
                own[row] = square.sqrt();
            }
            let step = |own: &mut [f64]| reduce(above, own, size, (start, end));
            match size < WORTH_SHARING {
                true => below.chunks_exact_mut(size).for_each(step),
                false => below.par_chunks_exact_mut(size).for_each(step),
            }
        }
        Some(Lower { size, values })
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..][..=row]
    }

    /// The inverse with rows and columns in reverse order, transposed twice over: `U[a][b] = inverse[size - 1 - a][size - 1 - b]`, an
    /// upper triangle. // (size, size)
    pub fn reversed_inverse(&self) -> Vec<f32> {
        let size = self.size;
        let mut columns = vec![0.0f32; size * size]; // of the inverse, as rows
        let chunks = columns.par_chunks_mut((SIDE * size).max(1)).enumerate();
        chunks.for_each(|(chunk, columns)| {
            let first = chunk * SIDE;
            let count = columns.len() / size;
            let mut found = vec![0.0f64; SIDE * size];
            for row in first..size {
                let own = self.row(row);
                let (mut parts, diagonal) = ([0.0; SIDE], own[row]);
                if row > first {
                    let others = each_side(&found, size).map(|other| &other[first..row]);
                    parts = dot_products(&own[first..row], others);
                }
                for (side, part) in parts.into_iter().enumerate() {
                    let one = if row == first + side { 1.0 } else { 0.0 };
                    found[side * size + row] = (one - part) / diagonal;
                }
            }
            for (column, found) in columns.chunks_exact_mut(size).zip(found.chunks_exact(size)).take(count) {
                column
                    .iter_mut()
                    .zip(found)
                    .for_each(|(value, found)| *value = *found as f32);
            }
        });
        let mut upper = vec![0.0f32; size * size];
        upper
            .par_chunks_exact_mut(size.max(1))
            .enumerate()
            .for_each(|(row, upper)| {
                for (col, value) in upper.iter_mut().enumerate().skip(row) {
                    *value = columns[(size - 1 - col) * size + size - 1 - row];
                }
            });
        upper
    }

    /// Every row x of a matrix becomes the solution of `y (L L^T) = x`. // (rows, size)
    pub fn solve(&self, matrix: &mut [f32]) {
        let size = self.size;
        matrix.par_chunks_mut((SIDE * size).max(1)).for_each(|rows| {
            let mut y = vec![0.0f64; SIDE * size];
            y.iter_mut().zip(&*rows).for_each(|(y, x)| *y = f64::from(*x));
            for row in 0..size {
                let own = self.row(row);
                let parts = dot_products(&own[..row], each_side(&y, size).map(|y| &y[..row]));
                for (side, part) in parts.into_iter().enumerate() {
                    y[side * size + row] = (y[side * size + row] - part) / own[row];
                }
            }
            for row in (0..size).rev() {
                let own = self.row(row);
                for y in y.chunks_exact_mut(size) {
                    y[row] /= own[row];
                    let found = y[row];
                    y[..row].iter_mut().zip(own).for_each(|(y, own)| *y -= found * own);
                }
            }
            rows.iter_mut().zip(&y).for_each(|(x, y)| *x = *y as f32);
        });
    }

    /// The solution of `(L L^T) y = x`, by one thread.
    pub fn solve_one(&self, x: &mut [f64]) {
        for row in 0..self.size {
            let own = self.row(row);
            x[row] = (x[row] - sum(&own[..row], &x[..row])) / own[row];
        }
        for row in (0..self.size).rev() {
            let own = self.row(row);
            x[row] /= own[row];
            let found = x[row];
            x[..row].iter_mut().zip(own).for_each(|(x, own)| *x -= found * own);
        }
    }
}

/// Entries `start..end` of a row, the rows above being done.
fn reduce(above: &[f64], own: &mut [f64], size: usize, (start, end): (usize, usize)) {
    for first in (start..end).step_by(SIDE) {
        let count = SIDE.min(end - first);
        let other = |side: usize| &above[(first + side.min(count - 1)) * size..][..start];
        let parts = dot_products(&own[..start], [0, 1, 2, 3].map(other));
        own[first..first + count]
            .iter_mut()
            .zip(parts)
            .for_each(|(value, part)| *value -= part);
    }
    for col in start..end {
        let other = &above[col * size..][..=col];
        own[col] = (own[col] - sum(&own[start..col], &other[start..col])) / other[col];
    }
}

fn each_side(values: &[f64], size: usize) -> [&[f64]; SIDE] {
    [0, 1, 2, 3].map(|side| &values[side * size..][..size])
}

fn sum(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
