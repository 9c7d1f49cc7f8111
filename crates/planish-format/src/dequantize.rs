//! Dequantizing: codes, scales and biases -> plain weights (rows, cols), `scale * code + bias` in `f32`, not fused.

use rayon::prelude::*;

use crate::bits::unpack8;
use crate::matrix::PackedRow;
use crate::{FloatType, PackedMatrix};

/// The weights as little-endian values of `float_type`: computed in `f32`, then rounded once. // (rows, cols)
pub fn dequantize(matrix: &PackedMatrix, float_type: FloatType) -> Vec<u8> {
    let row_bytes = matrix.cols * float_type.size_bytes();
    let mut data = vec![0; matrix.rows * row_bytes];
    if data.is_empty() {
        return data;
    }
    data.par_chunks_mut(row_bytes).enumerate().for_each_init(
        || vec![0.0; matrix.cols],
        |weights, (row, bytes)| {
            decode_row(&matrix.row(row), weights);
            float_type.encode(weights, bytes);
        },
    );
    data
}

/// The weights of one row. // (cols)
pub(crate) fn decode_row(row: &PackedRow, weights: &mut [f32]) {
    match row.packing.bits() {
        2 => decode_groups::<2>(row, weights),
        3 => decode_groups::<3>(row, weights),
        4 => decode_groups::<4>(row, weights),
        5 => decode_groups::<5>(row, weights),
        6 => decode_groups::<6>(row, weights),
        _ => decode_groups::<8>(row, weights),
    }
}

fn decode_groups<const BITS: usize>(row: &PackedRow, weights: &mut [f32]) {
    let group = row.packing.group();
    assert_eq!(row.codes.len() * 8, weights.len() * BITS, "columns of the row");
    let size = row.scale_type.size_bytes();
    let scales = row.scales.chunks_exact(size).zip(row.biases.chunks_exact(size));
    let groups = weights
        .chunks_exact_mut(group)
        .zip(row.codes.chunks_exact(group / 8 * BITS));
    for ((weights, codes), (scale, bias)) in groups.zip(scales) {
        let (mut affine, kind) = ([0.0; 2], row.scale_type);
        kind.decode(scale, &mut affine[..1]);
        kind.decode(bias, &mut affine[1..]);
        let [scale, bias] = affine;
        for (eight, packed) in weights
            .as_chunks_mut::<8>()
            .0
            .iter_mut()
            .zip(codes.as_chunks::<BITS>().0)
        {
            let codes = unpack8::<BITS>(*packed);
            *eight = std::array::from_fn(|lane| f32::from(codes[lane]) * scale + bias);
        }
    }
}
