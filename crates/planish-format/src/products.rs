//! Sums of products of matrices in memory, for methods that choose codes by what goes into a layer. They are here because the
//! table of instruction sets is.
//!
//! Every sum is added up in one order whatever the instruction set and however the work is cut: nothing is fused.

use crate::instructions;

/// Rows of the sums that are computed at once.
pub const TILE_ROWS: usize = 4;
/// Columns of the sums that are computed at once, where there are so many: the sums of a tile are four registers.
const WIDE: usize = 16;
/// Columns are a multiple of this.
const NARROW: usize = 8;
/// Sums that a product of rows keeps apart.
const LANES: usize = 16;

/// `sums[i][j] += sum over k of left[k][i] * right[k][j]`.
pub(crate) struct Tile<'a> {
    /// (depth, at least [`TILE_ROWS`]), with this many values from row to row.
    pub left: (&'a [f32], usize),
    /// (depth, width), likewise.
    pub right: (&'a [f32], usize),
    /// ([`TILE_ROWS`], width), likewise.
    pub sums: (&'a mut [f32], usize),
    pub depth: usize,
    pub width: usize,
}

/// `sum over k of one[k] * others[i][k]`.
pub(crate) struct Dots<'a> {
    pub one: &'a [f64],
    pub others: [&'a [f64]; 4],
}

/// `sums[i][j] += sum over k of left[k][i] * right[k][j]` for i below [`TILE_ROWS`], j below `width`, k below `depth`; of each
/// matrix its values and how many there are from row to row. Products of a sum are added up before they are added to it.
///
/// # Panics
/// If the width is no multiple of 8, or a matrix is too small.
pub fn add_products(
    left: (&[f32], usize),
    right: (&[f32], usize),
    sums: (&mut [f32], usize),
    (depth, width): (usize, usize),
) {
    assert!(width.is_multiple_of(NARROW), "columns by eight");
    if depth == 0 || width == 0 {
        return;
    }
    let end = |rows: usize, stride: usize, cols: usize| (rows - 1) * stride + cols;
    assert!(left.0.len() >= end(depth, left.1, TILE_ROWS), "the left matrix");
    assert!(right.0.len() >= end(depth, right.1, width), "the right matrix");
    assert!(sums.0.len() >= end(TILE_ROWS, sums.1, width), "the sums");
    instructions::tile(Tile {
        left,
        right,
        sums,
        depth,
        width,
    });
}

/// `sum over k of one[k] * others[i][k]`.
///
/// # Panics
/// If the others are shorter than the one.
pub fn dot_products(one: &[f64], others: [&[f64]; 4]) -> [f64; 4] {
    let others = others.map(|other| &other[..one.len()]);
    instructions::dots(Dots { one, others })
}

#[inline(always)]
pub(crate) fn tile(tile: &mut Tile) {
    let mut first = 0;
    while first + WIDE <= tile.width {
        columns::<WIDE>(tile, first);
        first += WIDE;
    }
    while first < tile.width {
        columns::<NARROW>(tile, first);
        first += NARROW;
    }
}

#[inline(always)]
fn columns<const WIDTH: usize>(tile: &mut Tile, first: usize) {
    let (left, left_stride) = tile.left;
    let (right, right_stride) = tile.right;
    // An array for each row: of an array of rows the compiler makes no registers.
    let (mut a, mut b, mut c, mut d) = ([0.0f32; WIDTH], [0.0f32; WIDTH], [0.0f32; WIDTH], [0.0f32; WIDTH]);
    for k in 0..tile.depth {
        let right: &[f32; WIDTH] = right[k * right_stride + first..]
            .first_chunk()
            .expect("checked by the caller");
        let left: &[f32; TILE_ROWS] = left[k * left_stride..].first_chunk().expect("checked by the caller");
        for lane in 0..WIDTH {
            a[lane] += left[0] * right[lane];
            b[lane] += left[1] * right[lane];
            c[lane] += left[2] * right[lane];
            d[lane] += left[3] * right[lane];
        }
    }
    let (sums, stride) = &mut tile.sums;
    for (row, found) in [a, b, c, d].iter().enumerate() {
        for (sum, found) in sums[row * *stride + first..].iter_mut().zip(found) {
            *sum += found;
        }
    }
}

#[inline(always)]
pub(crate) fn dots(dots: &Dots) -> [f64; 4] {
    let mut sums = [[0.0f64; LANES]; 4];
    let whole = dots.one.len() / LANES * LANES;
    for at in (0..whole).step_by(LANES) {
        let one: &[f64; LANES] = dots.one[at..].first_chunk().expect("whole lanes");
        for (sums, other) in sums.iter_mut().zip(dots.others) {
            let other: &[f64; LANES] = other[at..].first_chunk().expect("as long as the one");
            for lane in 0..LANES {
                sums[lane] += one[lane] * other[lane];
            }
        }
    }
    let mut found = [0.0; 4];
    for ((found, sums), other) in found.iter_mut().zip(sums).zip(dots.others) {
        *found = sums.iter().sum();
        for (one, other) in dots.one[whole..].iter().zip(&other[whole..]) {
            *found += one * other;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(seed: usize, count: usize) -> Vec<f32> {
        (0..count)
            .map(|at| ((at * 37 + seed * 101) % 113) as f32 * 0.25 - 13.0)
            .collect()
    }

    #[test]
    fn products_are_those_of_the_formula() {
        for (depth, width) in [(1, 8), (3, 40), (17, 104)] {
            let (left, right) = (values(1, depth * 6), values(2, depth * (width + 3)));
            let mut sums = values(3, 4 * (width + 1));
            let before = sums.clone();
            add_products((&left, 6), (&right, width + 3), (&mut sums, width + 1), (depth, width));
            for i in 0..4 {
                for j in 0..width {
                    let of = |k: usize| f64::from(left[k * 6 + i]) * f64::from(right[k * (width + 3) + j]);
                    let at = i * (width + 1) + j;
                    let expected = f64::from(before[at]) + (0..depth).map(of).sum::<f64>();
                    // Quarters: every sum is exact.
                    assert_eq!(f64::from(sums[at]), expected, "{i} {j}");
                }
                assert_eq!(
                    sums.get(i * (width + 1) + width),
                    before.get(i * (width + 1) + width),
                    "beyond"
                );
            }
        }
    }

    #[test]
    fn rows_are_multiplied_by_four() {
        for count in [0, 1, 15, 16, 45] {
            let row = |seed| -> Vec<f64> { values(seed, count).iter().map(|&value| f64::from(value)).collect() };
            let (one, others) = (row(0), [1, 2, 3, 4].map(row));
            let found = dot_products(&one, others.each_ref().map(|other| &other[..]));
            for (found, other) in found.iter().zip(&others) {
                assert_eq!(*found, one.iter().zip(other).map(|(a, b)| a * b).sum::<f64>());
            }
        }
    }
}
