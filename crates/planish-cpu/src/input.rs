//! The rows of x in the form that the kernels of a packed matrix want: rounded to 8 bits, or as floats.
//!
//! Rounded: per group of the weights, `x ~ scale * code` with `scale = max|x| / 127` and `code = round_half_even(x / scale)`.
//! The sums are those of the rounded values, so that `sum (s * w + b) * x = s * scale * sum w * code + b * sum_x` is exact
//! for the rounded x. A group that holds infinity or NaN gets the scale NaN: it shows in the output.
//! Kernels choose the order of the values within a row (they unpack codes interleaved); groups stay in order.

use planish_format::Packing;

use crate::scratch::Buffer;

/// What the form of the input depends on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Shape {
    /// Rows of x.
    pub m: usize,
    /// Values of a row.
    pub cols: usize,
    /// Bits and group of the weights.
    pub packing: Packing,
}

impl Shape {
    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.cols / self.packing.group()
    }

    /// Values from one row of x to the next: room for the largest chunk that a kernel reads at once, filled with zeros, and
    /// an odd number of cache lines so that equal columns of several rows do not fall into one cache set.
    pub fn stride(&self) -> usize {
        ((self.cols.next_multiple_of(256) / 64) | 1) * 64
    }

    /// Scales or sums from one row of x to the next, filled with zeros.
    pub fn group_stride(&self) -> usize {
        self.groups().next_multiple_of(16)
    }
}

/// One row of x while it is being rounded.
pub(crate) struct Int8Row<'a> {
    /// // (stride)
    pub codes: &'a mut [i8],
    /// // (group_stride)
    pub scales: &'a mut [f32],
    /// `scale * sum of codes`. // (group_stride)
    pub sums: &'a mut [f32],
}

/// One row of x while it is being arranged as floats.
pub(crate) struct ExactRow<'a> {
    /// // (stride)
    pub values: &'a mut [f32],
    /// Sum of the values of a group. // (group_stride)
    pub sums: &'a mut [f32],
}

/// All rows of x, rounded to 8 bits.
#[derive(Clone, Copy)]
pub(crate) struct Int8Input<'a> {
    pub shape: Shape,
    /// // (m, stride)
    pub codes: &'a [i8],
    /// // (m, group_stride)
    pub scales: &'a [f32],
    /// // (m, group_stride)
    pub sums: &'a [f32],
}

/// All rows of x as floats.
#[derive(Clone, Copy)]
pub(crate) struct ExactInput<'a> {
    pub shape: Shape,
    /// // (m, stride)
    pub values: &'a [f32],
    /// // (m, group_stride)
    pub sums: &'a [f32],
}

/// Memory of the input forms.
#[derive(Default)]
pub(crate) struct InputBuffers {
    pub values: Buffer,
    pub scales: Buffer,
    pub sums: Buffer,
}

/// Scale of a group of x whose largest magnitude has these bits, and its inverse. Values too small to matter become zero.
pub(crate) fn step_of(largest: f32) -> (f32, f32) {
    if largest < 1e-30 {
        (0.0, 0.0)
    } else if largest.is_finite() {
        (largest / 127.0, 127.0 / largest)
    } else {
        (f32::NAN, 0.0)
    }
}
