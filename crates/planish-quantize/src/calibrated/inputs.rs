//! What weights with the same inputs share: H, its factor in the order in which columns are coded, the correction of drift.

use planish_format::memory;
use rayon::prelude::*;

use super::Moments;
use super::panels::{PANEL_ROWS, Panel};
use super::triangle::inverse_factor;

/// Added to the diagonal of H, in parts of its mean.
const DAMPING: f64 = 0.01;
/// The same where drift is corrected.
const SOFT: f64 = 0.05;

/// The numbers of a basis, as the diagonal of H tells them.
#[derive(Clone, Debug)]
pub struct BasisNumbers {
    /// What stands on the diagonal in place of zeros.
    pub if_zero: f32,
    /// Added to the diagonal.
    pub damping: f64,
    /// The same where drift is corrected.
    pub soft: f64,
    /// The column that is coded n-th: group after group. // (cols)
    pub order: Vec<usize>,
}

impl BasisNumbers {
    /// The share of the drift that is corrected: all of it would fit the text too closely.
    pub const SHARE: f32 = 0.5;
    /// What damping is multiplied by where H has no factor.
    pub const MORE: f64 = 10.0;
    /// How often a factor is tried for.
    pub const TRIES: usize = 4;

    /// Of a mean over `rows` rows. `None` where it tells nothing: nothing but zeros, or values beyond f32. // diagonal (cols)
    pub fn new(diagonal: &[f32], rows: u64, group: usize) -> Option<BasisNumbers> {
        let cols = diagonal.len();
        let mut diagonal: Vec<f64> = diagonal.iter().copied().map(f64::from).collect();
        let mean = diagonal.iter().sum::<f64>() / cols as f64;
        if !(mean > 0.0 && (mean as f32).is_finite() && mean as f32 > f32::MIN_POSITIVE) {
            return None;
        }
        // Nothing ever came in there: as much as elsewhere, so that weights are kept.
        let if_zero = mean as f32;
        for own in &mut diagonal {
            *own = if *own == 0.0 { f64::from(if_zero) } else { *own };
        }
        // Fewer rows than columns say nothing of most directions.
        let thin = (cols as f64 / rows as f64).max(1.0);
        Some(BasisNumbers {
            if_zero,
            damping: DAMPING * thin * mean,
            soft: SOFT * thin * mean,
            order: order(&diagonal, group),
        })
    }
}

/// What the inputs of a layer say about the errors of its weights.
pub struct InputBasis {
    cols: usize,
    group: usize,
    /// H, damped. // (cols, cols)
    pub(super) squares: Vec<f32>,
    /// Sums over the blocks of two groups of H. // (groups, groups)
    pub(super) group_squares: Vec<f64>,
    /// The column that is coded n-th: group after group.
    pub(super) order: Vec<usize>,
    /// `U^T U = H^-1` in that order, upper. // (cols, cols)
    pub(super) upper: Vec<f32>,
    /// `E[(a' - a) a^T] (H + soft)^-1`. // (cols, cols)
    pub(super) drift: Option<Vec<f32>>,
}

impl InputBasis {
    /// Of inputs that were seen, for groups of `group` columns. `None` where they tell nothing: none, nothing but zeros, or values
    /// beyond f32.
    pub fn new(moments: Moments, group: usize) -> Option<InputBasis> {
        let cols = moments.cols();
        if moments.rows() == 0 || cols == 0 || !cols.is_multiple_of(group) {
            return None;
        }
        let rows = moments.rows();
        let (mut squares, drift) = moments.means();
        let diagonal: Vec<f32> = (0..cols).map(|col| squares[col * (cols + 1)]).collect();
        let numbers = BasisNumbers::new(&diagonal, rows, group)?;
        for col in 0..cols {
            let own = &mut squares[col * (cols + 1)];
            *own = if *own == 0.0 { numbers.if_zero } else { *own };
        }
        let drift = match drift {
            Some(drift) => {
                let (inverse, _) = factor(&squares, cols, numbers.soft, &|at| at)?;
                Some(solved(drift, inverse, cols))
            }
            None => None,
        };
        let order = numbers.order;
        let reversed = |at: usize| order[cols - 1 - at];
        let (mut upper, damping) = factor(&squares, cols, numbers.damping, &reversed)?;
        // The factor of the reversed matrix, its inverse, reversed back: an upper triangle.
        upper.reverse();
        (0..cols).for_each(|col| squares[col * (cols + 1)] += damping as f32);
        Some(InputBasis {
            cols,
            group,
            group_squares: group_sums(&squares, cols, group),
            squares,
            order,
            upper,
            drift,
        })
    }

    /// Columns of the weights.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Columns of a group.
    pub fn group(&self) -> usize {
        self.group
    }

    /// What codes are to come close to.
    pub(super) fn target(&self, weights: &Panel) -> Panel {
        let mut target = weights.clone();
        if let Some(drift) = &self.drift {
            target.add_product(weights, BasisNumbers::SHARE, drift);
        }
        target
    }
}

/// The inverse of the factor of `squares + damping`, rows and columns in another order, and the damping that it took.
fn factor(
    squares: &[f32],
    cols: usize,
    damping: f64,
    order: &(dyn Fn(usize) -> usize + Sync),
) -> Option<(Vec<f32>, f64)> {
    let mut damping = damping;
    for _ in 0..BasisNumbers::TRIES {
        let mut values = memory::filled("sums of products", cols * cols, 0f32);
        values.par_chunks_exact_mut(cols).enumerate().for_each(|(row, values)| {
            let from = &squares[order(row) * cols..][..cols];
            for (col, value) in values.iter_mut().enumerate().take(row + 1) {
                *value = from[order(col)];
            }
            values[row] += damping as f32;
        });
        if let Some(inverse) = inverse_factor(values, cols) {
            return Some((inverse, damping));
        }
        damping *= BasisNumbers::MORE;
    }
    None
}

/// `drift X^T X`, X being the inverse of a factor. All in place: a matrix of the widest inputs takes a good part of the memory.
fn solved(mut drift: Vec<f32>, mut inverse: Vec<f32>, cols: usize) -> Vec<f32> {
    transpose(&mut inverse, cols);
    multiply(&mut drift, &inverse, cols);
    transpose(&mut inverse, cols);
    multiply(&mut drift, &inverse, cols);
    drift
}

/// `rows square`, in the place of the rows. // (rows, cols), (cols, cols)
fn multiply(rows: &mut [f32], square: &[f32], cols: usize) {
    rows.par_chunks_mut(PANEL_ROWS * cols).for_each(|rows| {
        let mut product = Panel::zeros(cols);
        product.add_product(&Panel::of(rows, cols), 1.0, square);
        rows.copy_from_slice(&product.values()[..rows.len()]);
    });
}

/// Columns as rows, block by block, so that both of what is exchanged are in a cache. // (cols, cols)
fn transpose(square: &mut [f32], cols: usize) {
    const BLOCK: usize = 64;
    for first in (0..cols).step_by(BLOCK) {
        for other in (0..=first).step_by(BLOCK) {
            for row in first..(first + BLOCK).min(cols) {
                for col in other..(other + BLOCK).min(row) {
                    square.swap(row * cols + col, col * cols + row);
                }
            }
        }
    }
}

/// Groups by the sum of their diagonal, columns within a group by their own, largest first: the errors of the first are made up for
/// by all that follow. What is equal stays in order.
fn order(diagonal: &[f64], group: usize) -> Vec<usize> {
    let sums: Vec<f64> = diagonal.chunks_exact(group).map(|group| group.iter().sum()).collect();
    let mut groups: Vec<usize> = (0..sums.len()).collect();
    groups.sort_by(|left, right| sums[*right].total_cmp(&sums[*left]));
    let columns = |index: usize| {
        let mut columns: Vec<usize> = (index * group..(index + 1) * group).collect();
        columns.sort_by(|left, right| diagonal[*right].total_cmp(&diagonal[*left]));
        columns
    };
    groups.into_iter().flat_map(columns).collect()
}

fn group_sums(squares: &[f32], cols: usize, group: usize) -> Vec<f64> {
    let groups = cols / group;
    let mut sums = vec![0.0; groups * groups];
    sums.par_chunks_exact_mut(groups).enumerate().for_each(|(index, sums)| {
        for row in squares[index * group * cols..][..group * cols].chunks_exact(cols) {
            for (sum, values) in sums.iter_mut().zip(row.chunks_exact(group)) {
                *sum += values.iter().map(|value| f64::from(*value)).sum::<f64>();
            }
        }
    });
    sums
}
