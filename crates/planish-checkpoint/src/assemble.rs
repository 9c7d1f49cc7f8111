//! A tensor out of views of stored tensors: the way from [`Part`]s to data.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use planish_format::{PackedMatrix, memory};

use crate::{Dtype, Entry, Layout, Tensor, View, Weight};

/// What a tensor takes of one entry of a checkpoint. Of a tensor with several parts, the blocks of the parts alternate.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Index of the entry.
    pub entry: usize,
    /// Which of its values.
    pub view: View,
}

/// The parts of entries that are not stored as they are named, by their names.
pub(crate) type PartsByName = HashMap<String, Vec<Part>>;

/// The weight of `entry` out of its parts: the blocks of the parts alternate. Bytes are shared where the rows lie side by side.
pub(crate) fn assemble(entry: &Entry, parts: Vec<(Weight, &View)>) -> Weight {
    let Layout::Plain(dtype) = entry.layout else {
        let packed = |(weight, view)| match weight {
            Weight::Packed(matrix) => (matrix, view),
            Weight::Plain(_) => unreachable!("the parts of a packed entry are packed"),
        };
        return Weight::Packed(joined_packed(parts.into_iter().map(packed).collect()));
    };
    let plain = |(weight, view): (Weight, _)| match (weight, dtype.float_type()) {
        (Weight::Plain(tensor), Some(float_type)) => (tensor.cast(float_type), view),
        (Weight::Plain(tensor), None) => (tensor, view),
        (Weight::Packed(matrix), float_type) => {
            (Tensor::unpacked(&matrix, float_type.unwrap_or(matrix.scale_type)), view)
        }
    };
    let parts: Vec<(Tensor, &View)> = parts.into_iter().map(plain).collect();
    Weight::Plain(joined(&parts, dtype, &entry.shape))
}

/// A tensor of this type and shape out of parts of that type.
pub(crate) fn joined(parts: &[(Tensor, &View)], dtype: Dtype, shape: &[usize]) -> Tensor {
    let (size, shape) = (dtype.size_bytes(), shape.to_vec());
    if let [(tensor, view)] = parts
        && let (rows, cols) = tensor.rows_cols()
        && let Some(run) = view.run(rows)
    {
        let data = tensor.data.slice(run.start * cols * size..run.end * cols * size);
        return Tensor { dtype, shape, data };
    }
    let bytes = parts.iter().map(|(tensor, _)| tensor.data.len()).sum();
    let mut data = memory::with_room("weights", bytes);
    let blocks = parts
        .first()
        .map_or(0, |(tensor, view)| view.blocks(tensor.rows_cols().0));
    for block in 0..blocks {
        for (tensor, view) in parts {
            let cols = tensor.rows_cols().1;
            let rows = view.block_size(cols).0;
            let stored =
                |rows: Range<usize>| Cow::Borrowed(&tensor.data[rows.start * cols * size..rows.end * cols * size]);
            let bytes = view.take(block * rows..(block + 1) * rows, cols, size, stored);
            data.extend_from_slice(&match dtype.float_type() {
                Some(float_type) => view.added(bytes, float_type),
                None => bytes,
            });
        }
    }
    let data = data.into();
    Tensor { dtype, shape, data }
}

fn joined_packed(parts: Vec<(PackedMatrix, &View)>) -> PackedMatrix {
    if let [(matrix, view)] = &parts[..]
        && let Some(run) = view.run(matrix.rows)
    {
        return matrix.slice_rows(run);
    }
    let mut joined = parts[0].0.clone();
    let shape = joined.shape();
    let blocks = parts[0].1.blocks(joined.rows);
    let gather = |part: fn(&PackedMatrix) -> &[u8], row_bytes: usize| {
        let mut rows = Vec::new();
        for block in 0..blocks {
            let taken = parts.iter().map(|(matrix, view)| (part(matrix), view.block(block)));
            rows.extend(taken.map(|(bytes, rows)| &bytes[rows.start * row_bytes..rows.end * row_bytes]));
        }
        rows.concat().into()
    };
    joined.codes = gather(|matrix| &matrix.codes, shape.code_row_bytes());
    joined.scales = gather(|matrix| &matrix.scales, shape.scale_row_bytes());
    joined.biases = gather(|matrix| &matrix.biases, shape.scale_row_bytes());
    joined.rows = parts
        .iter()
        .map(|(matrix, view)| view.size(matrix.rows, matrix.cols).0)
        .sum();
    joined
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::tests::{numbers, values};

    /// Views that part the rows of each block come together again by their inverses.
    #[test]
    fn parts_join_to_what_they_were() {
        let whole = numbers(&[6, 4]);
        let part = |rows: Range<usize>, transposed: bool, add: f32| View {
            block_rows: 3,
            rows,
            transposed,
            add,
            ..View::whole(6)
        };
        let views = [part(0..1, true, 1.0), part(1..3, false, -2.0)];
        let inverses = views.each_ref().map(|view| view.inverse(4).unwrap());
        let parts: Vec<(Weight, &View)> = views
            .iter()
            .zip(&inverses)
            .map(|(view, inverse)| {
                let (rows, cols) = view.size(6, 4);
                (Weight::Plain(view.apply(whole.clone(), &[rows, cols])), inverse)
            })
            .collect();
        let entry = Entry {
            name: "joined".to_owned(),
            shape: vec![6, 4],
            layout: Layout::Plain(Dtype::F32),
            stored_bytes: 0,
        };
        let Weight::Plain(joined) = assemble(&entry, parts) else {
            panic!("plain parts stay plain")
        };
        assert_eq!(values(&joined), values(&whole));
        let some_columns = View {
            col_step: 2,
            ..View::whole(6)
        };
        assert_eq!(some_columns.inverse(4), None);
    }
}
