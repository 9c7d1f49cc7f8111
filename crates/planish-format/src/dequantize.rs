//! Dequantizing: codes, scales and biases -> plain weights (rows, cols), `scale * code + bias` in `f32`, not fused.

use rayon::prelude::*;

use crate::{FloatType, PackedMatrix, memory};

/// The weights as little-endian values of `float_type`: computed in `f32`, then rounded once. // (rows, cols)
///
/// Rows are spread over the threads of the rayon pool.
pub fn dequantize(matrix: &PackedMatrix, float_type: FloatType) -> Vec<u8> {
    let bytes = (matrix.rows * matrix.cols).saturating_mul(float_type.size_bytes());
    let mut data = memory::filled("weights", bytes, 0);
    dequantize_into(matrix, float_type, &mut data);
    data
}

/// As [`dequantize`], into room that may be used again: fresh memory costs more time than decoding.
///
/// # Panics
/// If `data` is not `rows * cols * float_type.size_bytes()` long.
pub fn dequantize_into(matrix: &PackedMatrix, float_type: FloatType, data: &mut [u8]) {
    let row_bytes = matrix.cols * float_type.size_bytes();
    assert_eq!(
        data.len(),
        matrix.rows * row_bytes,
        "bytes of {} x {} weights",
        matrix.rows,
        matrix.cols
    );
    if data.is_empty() {
        return;
    }
    data.par_chunks_mut(row_bytes).enumerate().for_each_init(
        || (vec![0; matrix.cols], vec![0.0; matrix.cols]),
        |(codes, weights), (row, bytes)| {
            matrix.dequantize_row_with(row, codes, weights);
            float_type.encode(weights, bytes);
        },
    );
}
