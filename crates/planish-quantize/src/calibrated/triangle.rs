//! Triangular factors of symmetric matrices: large ones in f32 by blocks, whose own factors are in f64; small ones in f64.

use planish_format::{TILE_ROWS, add_products, dot_products, memory};
use rayon::prelude::*;

/// Rows and columns of a block: a multiple of the rows of a tile.
const BLOCK: usize = 64;
/// Products that are summed up in f32 before they are added to the others.
const DEPTH: usize = 256;

/// Takes a symmetric matrix, of which the lower triangle is read, for the inverse of its lower factor L, `L L^T` being the matrix; a
/// lower triangle too, with zeros above. `None` if it is not positive definite, or holds what is no number. The size is a multiple of 8.
/// // (size, size)
pub(super) fn inverse_factor(mut values: Vec<f32>, size: usize) -> Option<Vec<f32>> {
    let diagonals = factorize(&mut values, size)?;
    // Rows of the inverse take the place of rows of L, of which only the next ones are still read.
    for (index, diagonal) in diagonals.iter().enumerate() {
        let start = index * BLOCK;
        let count = BLOCK.min(size - start);
        let (before, own) = values.split_at_mut(start * size);
        let own = &mut own[..count * size];
        // The rows of L left of the block. // (start, BLOCK)
        let mut left = vec![0.0f32; start * BLOCK];
        for (col, left) in left.chunks_exact_mut(BLOCK).enumerate() {
            left.iter_mut()
                .zip(own.chunks_exact(size))
                .for_each(|(left, own)| *left = own[col]);
        }
        own.fill(0.0);
        for (row, own) in own.chunks_exact_mut(size).enumerate() {
            let diagonal = &diagonal[row * BLOCK..][..=row];
            own[start..]
                .iter_mut()
                .zip(diagonal)
                .for_each(|(own, value)| *own = *value as f32);
        }
        if start == 0 {
            continue;
        }
        // Times the rows of the inverse that are there.
        let mut sums = vec![0.0f32; BLOCK * start];
        sums.par_chunks_exact_mut(TILE_ROWS * start)
            .enumerate()
            .for_each(|(tile, sums)| {
                for first in (0..start).step_by(DEPTH) {
                    let depth = DEPTH.min(start - first);
                    let left = (&left[first * BLOCK + tile * TILE_ROWS..], BLOCK);
                    // Rows of the inverse end at their diagonal.
                    add_products(
                        left,
                        (&before[first * size..], size),
                        (sums, start),
                        (depth, first + depth),
                    );
                }
            });
        let mut minus = vec![0.0f32; BLOCK * BLOCK]; // (col, row)
        for row in 0..count {
            (0..=row).for_each(|col| minus[col * BLOCK + row] = -diagonal[row * BLOCK + col] as f32);
        }
        own.par_chunks_exact_mut(TILE_ROWS * size)
            .enumerate()
            .for_each(|(tile, own)| {
                let left = (&minus[tile * TILE_ROWS..], BLOCK);
                add_products(left, (&sums, start), (own, size), (count, start));
            });
    }
    Some(values)
}

/// Puts L in the place of the lower triangle, except in blocks on the diagonal: the inverses of those are returned, a lower triangle
/// each. // (BLOCK, BLOCK) each
fn factorize(values: &mut [f32], size: usize) -> Option<Vec<Vec<f64>>> {
    let mut diagonals = Vec::new();
    for start in (0..size).step_by(BLOCK) {
        let end = (start + BLOCK).min(size);
        let count = end - start;
        let (above, below) = values.split_at_mut(end * size);
        let block = (0..count).flat_map(|row| &above[(start + row) * size + start..][..count]);
        let inverse = Lower::of(block.map(|value| f64::from(*value)).collect(), count)?.inverse();
        below.par_chunks_exact_mut(size).for_each(|row| {
            let own = &mut row[start..end];
            let mut found = [0.0f64; BLOCK];
            for (col, found) in found[..count].iter_mut().enumerate() {
                let pairs = inverse[col * BLOCK..][..=col].iter().zip(&*own);
                *found = pairs.map(|(inverse, value)| inverse * f64::from(*value)).sum();
            }
            own.iter_mut().zip(found).for_each(|(own, found)| *own = found as f32);
        });
        // The block of columns, as rows, and the same negated.
        let rest = size - end;
        let mut columns = memory::filled("sums of products", count * rest, 0f32);
        columns
            .par_chunks_exact_mut(rest.max(1))
            .enumerate()
            .for_each(|(col, columns)| {
                columns
                    .iter_mut()
                    .zip(below.chunks_exact(size))
                    .for_each(|(value, row)| *value = row[start + col]);
            });
        let minus: Vec<f32> = columns.par_iter().map(|value| -value).collect();
        below
            .par_chunks_exact_mut(TILE_ROWS * size)
            .enumerate()
            .for_each(|(tile, rows)| {
                let first = tile * TILE_ROWS;
                // To the diagonal, by eight.
                let width = (first + TILE_ROWS).next_multiple_of(8);
                add_products(
                    (&minus[first..], rest),
                    (&columns, rest),
                    (&mut rows[end..], size),
                    (count, width),
                );
            });
        diagonals.push(inverse);
    }
    Some(diagonals)
}

/// A small lower triangle: `L L^T` is the matrix that it was made of.
pub(super) struct Lower {
    size: usize,
    values: Vec<f64>, // (size, size); above the diagonal is nothing of use
}

impl Lower {
    /// The factor of a symmetric matrix, of which the lower triangle is read. `None` if it is not positive definite, or holds what is
    /// no number. // (size, size)
    pub fn of(mut values: Vec<f64>, size: usize) -> Option<Lower> {
        for row in 0..size {
            let (above, own) = values.split_at_mut(row * size);
            for col in (0..row).step_by(4) {
                let count = 4.min(row - col);
                let other = |side: usize| &above[(col + side.min(count - 1)) * size..][..col];
                let parts = dot_products(&own[..col], [0, 1, 2, 3].map(other));
                for (side, part) in parts.into_iter().enumerate().take(count) {
                    let (at, other) = (col + side, &above[(col + side) * size..]);
                    own[at] = (own[at] - part - sum(&own[col..at], &other[col..at])) / other[at];
                }
            }
            let square = own[row] - sum(&own[..row], &own[..row]);
            if !(square > 0.0 && square.is_finite()) {
                return None;
            }
            own[row] = square.sqrt();
        }
        Some(Lower { size, values })
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.values[row * self.size..][..=row]
    }

    /// The inverse of the triangle, with room for a whole block. // (BLOCK, BLOCK)
    fn inverse(&self) -> Vec<f64> {
        let mut inverse = vec![0.0; BLOCK * BLOCK];
        for row in 0..self.size {
            let own = self.row(row);
            for col in 0..=row {
                let products = (col..row).map(|at| own[at] * inverse[at * BLOCK + col]).sum::<f64>();
                let one = if row == col { 1.0 } else { 0.0 };
                inverse[row * BLOCK + col] = (one - products) / own[row];
            }
        }
        inverse
    }

    /// The solution of `(L L^T) y = x`.
    pub fn solve(&self, x: &mut [f64]) {
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

fn sum(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
