//! What weights with the same inputs share: squares, the factor of their inverse, the correction of drift.

use std::sync::Arc;

use planish_gpu::{Error, Queue};

use crate::GpuOps;
use crate::launch::{Added, FactorBlock, Multiply, PlaceBlocks, Square, SquareStep, Tiles, Zeros};

/// With which numbers.
#[derive(Clone, Copy, Debug)]
pub struct BasisPlan<'a> {
    /// Columns of a group.
    pub group: usize,
    /// The column that is coded n-th. // (cols)
    pub order: &'a [usize],
    /// What stands on the diagonal in place of zeros.
    pub if_zero: f32,
    /// Added to the diagonal.
    pub damping: f64,
    /// The same where drift is corrected.
    pub soft: f64,
    /// What both are multiplied by where there is no factor, and how often.
    pub more: f64,
    /// How often, the first time counted in.
    pub tries: usize,
    /// The share of the drift that is corrected.
    pub share: f32,
}

/// What the inputs of a layer say about the errors of its weights, on the device.
pub struct GpuBasis<Q: Queue> {
    pub(super) ops: Arc<GpuOps<Q>>,
    pub(super) cols: usize,
    pub(super) group: usize,
    /// Means of products, damped. // (cols, cols)
    pub(super) squares: Q::Buffer,
    /// Sums of them over the blocks of two groups, f64. // (groups, groups)
    pub(super) group_squares: Q::Buffer,
    /// The column that is coded n-th, u32. // (cols)
    pub(super) order: Q::Buffer,
    /// The upper factor of the inverse, in that order. // (cols, cols)
    pub(super) upper: Q::Buffer,
    /// Of errors in the search: by the diagonal of the factor. // (cols)
    pub(super) weights: Q::Buffer,
    /// What weights are multiplied by for their correction, and its share. // (cols, cols)
    pub(super) drift: Option<(Q::Buffer, f32)>,
}

impl<Q: Queue> GpuBasis<Q> {
    pub(super) fn new(
        ops: Arc<GpuOps<Q>>,
        cols: usize,
        (squares, drift): (Q::Buffer, Option<Q::Buffer>),
        plan: &BasisPlan<'_>,
    ) -> Result<Option<GpuBasis<Q>>, Error> {
        let (size, group) = (cols as u32, plan.group as u32);
        let run =
            |step, buffers: &[(&Q::Buffer, usize)]| ops.try_run(&Square { step, size, group }.launch(), buffers, false);
        let change = |if_zero, added| run(SquareStep::ChangeDiagonal { if_zero, added }, &[(&squares, 0)]);
        change(plan.if_zero, 0.0)?;
        let drift = match drift {
            Some(drift) => {
                let as_it_is: Vec<u32> = (0..size).collect();
                let order = ops.uploaded(&as_it_is)?;
                let Some((inverse, _)) = factor(&ops, &squares, size, plan, (plan.soft, &order))? else {
                    return Ok(None);
                };
                Some((solved(&ops, drift, &inverse, size)?, plan.share))
            }
            None => None,
        };
        let order: Vec<u32> = plan.order.iter().map(|&col| col as u32).collect();
        let reversed: Vec<u32> = order.iter().rev().copied().collect();
        let reversed = ops.uploaded(&reversed)?;
        let Some((inverse, damping)) = factor(&ops, &squares, size, plan, (plan.damping, &reversed))? else {
            return Ok(None);
        };
        // The factor of the reversed matrix, its inverse, reversed back: an upper triangle.
        let upper = ops.queue.allocate(4 * cols * cols)?;
        run(SquareStep::Reverse, &[(&inverse, 0), (&upper, 0)])?;
        change(0.0, damping as f32)?;
        let groups = cols / plan.group;
        let group_squares = ops.queue.allocate(8 * groups * groups)?;
        run(SquareStep::SumGroups, &[(&squares, 0), (&group_squares, 0)])?;
        // In units of the largest, so that sums neither overflow nor vanish.
        let diagonal = ops.diagonal(&upper, cols)?;
        let unit = diagonal.iter().copied().fold(f32::INFINITY, f32::min);
        let weights: Vec<f32> = diagonal.iter().map(|own| (unit / own).powi(2)).collect();
        Ok(Some(GpuBasis {
            cols,
            group: plan.group,
            squares,
            group_squares,
            order: ops.uploaded(&order)?,
            upper,
            weights: ops.uploaded(&weights)?,
            drift,
            ops,
        }))
    }

    /// Columns of the weights.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Columns of a group.
    pub fn group(&self) -> usize {
        self.group
    }
}

/// The inverse of the lower factor of `squares` in another order, its diagonal damped, and the damping that it took.
fn factor<Q: Queue>(
    ops: &GpuOps<Q>,
    squares: &Q::Buffer,
    size: u32,
    plan: &BasisPlan<'_>,
    (mut damping, order): (f64, &Q::Buffer),
) -> Result<Option<(Q::Buffer, f64)>, Error> {
    let bytes = 4 * size as usize * size as usize;
    let values = ops.queue.allocate(bytes)?;
    let blocks = size.div_ceil(FactorBlock::SIZE) as usize;
    let block_bytes = 4 * (FactorBlock::SIZE * FactorBlock::SIZE) as usize;
    for _ in 0..plan.tries {
        let added = damping as f32;
        let step = SquareStep::Arrange { added };
        let arrange = Square { step, size, group: 8 };
        ops.try_run(&arrange.launch(), &[(squares, 0), (order, 0), (&values, 0)], false)?;
        let inverses = ops.queue.allocate(blocks * block_bytes)?;
        if factorize(ops, &values, &inverses, size)? {
            return Ok(Some((inverse(ops, &values, &inverses, size)?, damping)));
        }
        damping *= plan.more;
    }
    Ok(None)
}

/// Puts the factor in the place of the lower triangle, except in blocks on the diagonal, whose inverses are filled in; whether there is one.
fn factorize<Q: Queue>(ops: &GpuOps<Q>, values: &Q::Buffer, inverses: &Q::Buffer, size: u32) -> Result<bool, Error> {
    let failed = ops.queue.allocate(4)?;
    let nothing = (&ops.nothing, 0);
    for first in (0..size).step_by(FactorBlock::SIZE as usize) {
        let block = FactorBlock { size, first };
        ops.try_run(&block.launch(), &[(values, 0), (inverses, 0), (&failed, 0)], false)?;
        let end = (first + FactorBlock::SIZE).min(size);
        let (count, rest) = (end - first, size - end);
        if rest == 0 {
            break;
        }
        let at = |row: u32, col: u32| (values, 4 * (row as usize * size as usize + col as usize));
        let inverse = (inverses, 4 * (first * FactorBlock::SIZE) as usize);
        // A tile of the result has all columns of its rows, so that it may stand where it came from.
        let below = Multiply {
            left_stride: size,
            right_stride: FactorBlock::SIZE,
            right_transposed: true,
            to_stride: size,
            ..Multiply::new(rest, count, count)
        };
        ops.try_run(
            &below.launch(),
            &[at(end, first), inverse, nothing, at(end, first)],
            false,
        )?;
        let right = Multiply {
            left_stride: size,
            right_stride: size,
            right_transposed: true,
            to_stride: size,
            factor: -1.0,
            added: Added::Itself,
            tiles: Tiles::Lower,
            ..Multiply::new(rest, rest, count)
        };
        let panel = at(end, first);
        ops.try_run(&right.launch(), &[panel, panel, nothing, at(end, end)], false)?;
    }
    let mut found = [0u32];
    ops.queue.download(&failed, 0, bytemuck::cast_slice_mut(&mut found))?;
    Ok(found == [0])
}

/// The inverse of a lower factor of which [`factorize`] left the parts.
fn inverse<Q: Queue>(ops: &GpuOps<Q>, values: &Q::Buffer, inverses: &Q::Buffer, size: u32) -> Result<Q::Buffer, Error> {
    let found = ops.queue.allocate(4 * size as usize * size as usize)?;
    let sums = ops.queue.allocate(4 * (FactorBlock::SIZE * size) as usize)?;
    let nothing = (&ops.nothing, 0);
    ops.try_run(&PlaceBlocks { size }.launch(), &[(inverses, 0), (&found, 0)], false)?;
    for first in (0..size).step_by(FactorBlock::SIZE as usize).skip(1) {
        let count = FactorBlock::SIZE.min(size - first);
        let row = 4 * first as usize * size as usize;
        let left = Multiply {
            left_stride: size,
            right_stride: size,
            to_stride: size,
            zeros: Zeros::Before,
            ..Multiply::new(count, first, first)
        };
        ops.try_run(
            &left.launch(),
            &[(values, row), (&found, 0), nothing, (&sums, 0)],
            false,
        )?;
        let own = Multiply {
            left_stride: FactorBlock::SIZE,
            right_stride: size,
            to_stride: size,
            factor: -1.0,
            ..Multiply::new(count, first, count)
        };
        let block = (inverses, 4 * (first * FactorBlock::SIZE) as usize);
        ops.try_run(&own.launch(), &[block, (&sums, 0), nothing, (&found, row)], false)?;
    }
    Ok(found)
}

/// `drift X^T X`, X being the inverse of a factor.
fn solved<Q: Queue>(ops: &GpuOps<Q>, drift: Q::Buffer, inverse: &Q::Buffer, size: u32) -> Result<Q::Buffer, Error> {
    let half = ops.queue.allocate(4 * size as usize * size as usize)?;
    let nothing = (&ops.nothing, 0);
    let first = Multiply {
        right_transposed: true,
        zeros: Zeros::After,
        ..Multiply::new(size, size, size)
    };
    ops.try_run(
        &first.launch(),
        &[(&drift, 0), (inverse, 0), nothing, (&half, 0)],
        false,
    )?;
    let second = Multiply {
        zeros: Zeros::Before,
        ..Multiply::new(size, size, size)
    };
    ops.try_run(
        &second.launch(),
        &[(&half, 0), (inverse, 0), nothing, (&drift, 0)],
        false,
    )?;
    Ok(drift)
}

impl<Q: Queue> GpuOps<Q> {
    /// Values in memory of their own.
    pub(super) fn uploaded<T: bytemuck::NoUninit>(&self, values: &[T]) -> Result<Q::Buffer, Error> {
        let buffer = self.queue.allocate(size_of_val(values))?;
        self.queue.upload(bytemuck::cast_slice(values), &buffer, 0)?;
        Ok(buffer)
    }

    /// Of a matrix (size, size) of f32.
    pub(super) fn diagonal(&self, square: &Q::Buffer, size: usize) -> Result<Vec<f32>, Error> {
        let found = self.queue.allocate(4 * size)?;
        let read = Square {
            step: SquareStep::ReadDiagonal,
            size: size as u32,
            group: 8,
        };
        self.try_run(&read.launch(), &[(square, 0), (&found, 0)], false)?;
        let mut diagonal = vec![0.0f32; size];
        self.queue
            .download(&found, 0, bytemuck::cast_slice_mut(&mut diagonal))?;
        Ok(diagonal)
    }
}
