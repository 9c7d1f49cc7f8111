//! Cuts a layer out of the tensor that the checkpoint stores: some rows of a fused one, transposed where it stands so.
//! One run of rows shares the bytes of the tensor; several are copied together.

use std::ops::Range;

use bytes::Bytes;
use planish_checkpoint::{Tensor, Weight};

use crate::{LinearSpec, Stored};

/// The layer's rows of a tensor whose shape fits the spec; `transposed` says whether a plain one stands as (cols, rows).
/// // (rows, cols)
pub(crate) fn cut(weight: Weight, spec: &LinearSpec, transposed: bool) -> Weight {
    let whole = 0..spec.rows;
    let ranges = match &spec.stored {
        Stored::Whole => std::slice::from_ref(&whole),
        Stored::Rows { ranges, .. } => ranges,
    };
    match weight {
        Weight::Plain(tensor) => {
            let size = tensor.dtype.size_bytes();
            let data = match transposed {
                true => transposed_rows(&tensor.data, spec, ranges, size),
                false => rows(&tensor.data, ranges, spec.cols * size),
            };
            let shape = vec![spec.rows, spec.cols];
            Weight::Plain(Tensor { shape, data, ..tensor })
        }
        Weight::Packed(matrix) => Weight::Packed(match ranges {
            [one] => matrix.slice_rows(one.clone()),
            several => matrix.gather_rows(several),
        }),
    }
}

/// Rows of `row_bytes` each.
fn rows(data: &Bytes, ranges: &[Range<usize>], row_bytes: usize) -> Bytes {
    let span = |range: &Range<usize>| range.start * row_bytes..range.end * row_bytes;
    match ranges {
        [one] => data.slice(span(one)),
        several => {
            let parts: Vec<&[u8]> = several.iter().map(|range| &data[span(range)]).collect();
            parts.concat().into()
        }
    }
}

/// Columns of a tensor (cols, stored rows) as rows. `size` is that of a value in bytes.
fn transposed_rows(data: &[u8], spec: &LinearSpec, ranges: &[Range<usize>], size: usize) -> Bytes {
    let stored = spec.stored_rows();
    let mut rows = Vec::with_capacity(spec.rows * spec.cols * size);
    for row in ranges.iter().cloned().flatten() {
        for col in 0..spec.cols {
            rows.extend_from_slice(&data[(col * stored + row) * size..][..size]);
        }
    }
    rows.into()
}
