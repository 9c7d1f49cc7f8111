//! Cuts a layer out of the tensor that the checkpoint stores: some rows of a fused one, transposed where it stands so.
//! One run of rows shares the bytes of the tensor; several are copied together.

use std::ops::Range;

use bytes::Bytes;
use planish_checkpoint::{Tensor, Weight, transpose_columns};
use planish_format::memory;

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
                true => {
                    let mut rows = memory::with_room("weights", spec.rows * spec.cols * size);
                    let columns = ranges.iter().cloned().flatten();
                    transpose_columns(&tensor.data, spec.stored_rows() * size, size, columns, &mut rows);
                    rows.into()
                }
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
            let mut rows = memory::with_room("weights", several.iter().map(|range| span(range).len()).sum());
            several
                .iter()
                .for_each(|range| rows.extend_from_slice(&data[span(range)]));
            rows.into()
        }
    }
}

#[cfg(test)]
mod tests {
    use planish_checkpoint::Dtype;
    use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};

    use super::*;

    /// Value `100 * row + col` at (row, col), as f32 bytes.
    fn numbers(rows: usize, cols: usize, at: impl Fn(usize, usize) -> (usize, usize)) -> Weight {
        let places = (0..rows).flat_map(|row| (0..cols).map(move |col| (row, col)));
        let value = |(row, col)| {
            let (row, col) = at(row, col);
            ((100 * row + col) as f32).to_le_bytes()
        };
        Weight::Plain(Tensor {
            dtype: Dtype::F32,
            shape: vec![rows, cols],
            data: places.flat_map(value).collect::<Vec<u8>>().into(),
        })
    }

    fn values(weight: Weight) -> Vec<f32> {
        let Weight::Plain(tensor) = weight else {
            panic!("a plain tensor stays plain")
        };
        let words = tensor.data.chunks_exact(4);
        words.map(|word| f32::from_le_bytes(word.try_into().unwrap())).collect()
    }

    fn fused() -> LinearSpec {
        LinearSpec::new("fused", 12, 3)
    }

    #[test]
    fn plain_rows_in_the_order_of_their_ranges() {
        let weight = numbers(12, 3, |row, col| (row, col));
        let run = cut(weight.clone(), &fused().cut_run(4, 2), false);
        assert_eq!(values(run), [400., 401., 402., 500., 501., 502.]);
        // Row 1 of each of three heads of four rows.
        let spec = fused().cut_heads(3, 4, 1..2);
        assert_eq!((spec.rows, spec.stored_rows()), (3, 12));
        assert_eq!(
            values(cut(weight, &spec, false)),
            [100., 101., 102., 500., 501., 502., 900., 901., 902.]
        );
    }

    #[test]
    fn one_run_of_rows_is_not_copied() {
        let weight = numbers(12, 3, |row, col| (row, col));
        let (Weight::Plain(whole), Weight::Plain(run)) = (weight.clone(), cut(weight, &fused().cut_run(4, 2), false))
        else {
            panic!("a plain tensor stays plain")
        };
        assert_eq!(run.data.as_ptr(), whole.data[4 * 3 * 4..].as_ptr());
    }

    #[test]
    fn transposed_rows_are_columns() {
        let stored = numbers(3, 12, |row, col| (col, row));
        let spec = fused();
        let upright = numbers(12, 3, |row, col| (row, col));
        assert_eq!(values(cut(stored.clone(), &spec, true)), values(upright.clone()));
        let heads = spec.cut_heads(2, 6, 4..6);
        let expected = cut(upright, &fused().cut_heads(2, 6, 4..6), false);
        assert_eq!(values(cut(stored, &heads, true)), values(expected));
    }

    #[test]
    fn packed_rows_keep_their_codes_scales_and_biases() {
        let (rows, cols) = (6, 32);
        let shape = PackedShape::new(rows, cols, Packing::new(4, 16).unwrap(), FloatType::F32).unwrap();
        let bytes = |len: usize, seed: usize| (0..len).map(|i| (i * 7 + seed) as u8).collect::<Vec<u8>>().into();
        let (codes, scales) = (bytes(shape.code_bytes(), 1), bytes(shape.scale_bytes(), 2));
        let matrix = PackedMatrix::new(shape, codes, scales, bytes(shape.scale_bytes(), 3)).unwrap();
        let spec = LinearSpec::new("fused", rows, cols);
        for (spec, stored) in [
            (spec.cut_run(2, 3), vec![2, 3, 4]),
            (spec.cut_heads(2, 3, 1..3), vec![1, 2, 4, 5]),
        ] {
            let Weight::Packed(found) = cut(Weight::Packed(matrix.clone()), &spec, false) else {
                panic!("a packed matrix stays packed")
            };
            assert_eq!(found.rows, stored.len());
            for (row, stored) in stored.into_iter().enumerate() {
                let (found, expected) = (found.row(row), matrix.row(stored));
                assert_eq!(
                    (found.codes, found.scales, found.biases),
                    (expected.codes, expected.scales, expected.biases)
                );
            }
        }
    }
}
