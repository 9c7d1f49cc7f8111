//! The weights that the kernels multiply with: packed or plain, read in place, at any alignment.

use planish_format::PackedMatrix;
use planish_ops::{Matrix, PlainMatrix, Resident, Shape};

use crate::interleaved::Interleaved;
use crate::scalar::packed_row;

/// The weight of a linear layer or an embedding.
#[derive(Clone, Debug)]
pub enum CpuMatrix {
    /// Codes with a scale and a bias per group.
    Packed(PackedMatrix),
    /// The same, arranged for the CPU's products with one row.
    Interleaved(Interleaved),
    /// One float per weight.
    Plain(PlainMatrix),
}

impl From<Matrix> for CpuMatrix {
    fn from(matrix: Matrix) -> CpuMatrix {
        match matrix {
            Matrix::Packed(matrix) => CpuMatrix::Packed(matrix),
            Matrix::Plain(matrix) => CpuMatrix::Plain(matrix),
        }
    }
}

impl Shape for CpuMatrix {
    fn rows(&self) -> usize {
        CpuMatrix::rows(self)
    }

    fn cols(&self) -> usize {
        CpuMatrix::cols(self)
    }
}

impl Resident for CpuMatrix {
    fn bytes(&self) -> usize {
        CpuMatrix::bytes(self)
    }
}

impl CpuMatrix {
    /// Output features.
    pub fn rows(&self) -> usize {
        match self {
            CpuMatrix::Packed(matrix) => matrix.rows,
            CpuMatrix::Interleaved(matrix) => matrix.shape.rows,
            CpuMatrix::Plain(matrix) => matrix.rows,
        }
    }

    /// Input features.
    pub fn cols(&self) -> usize {
        match self {
            CpuMatrix::Packed(matrix) => matrix.cols,
            CpuMatrix::Interleaved(matrix) => matrix.shape.cols,
            CpuMatrix::Plain(matrix) => matrix.cols,
        }
    }

    /// Bytes that one pass over the matrix reads: codes, scales and biases, or floats.
    pub fn bytes(&self) -> usize {
        match self {
            CpuMatrix::Packed(matrix) => matrix.codes.len() + matrix.scales.len() + matrix.biases.len(),
            CpuMatrix::Interleaved(matrix) => matrix.data.len(),
            CpuMatrix::Plain(matrix) => matrix.data.len(),
        }
    }

    /// Columns that only come together: those of a group of packed ones.
    pub(crate) fn group(&self) -> usize {
        match self {
            CpuMatrix::Packed(matrix) => matrix.packing.group(),
            CpuMatrix::Interleaved(matrix) => matrix.shape.packing.group(),
            CpuMatrix::Plain(_) => 1,
        }
    }

    /// One row as f32. // (cols)
    pub(crate) fn row(&self, row: usize, into: &mut [f32]) {
        match self {
            CpuMatrix::Packed(matrix) => packed_row(matrix, row, into),
            CpuMatrix::Interleaved(matrix) => matrix.part_of_row(row, 0..matrix.shape.cols, into),
            CpuMatrix::Plain(PlainMatrix {
                cols, float_type, data, ..
            }) => {
                let row_bytes = cols * float_type.size_bytes();
                float_type.decode(&data[row * row_bytes..][..row_bytes], into);
            }
        }
    }

    /// Where its data begins: no other weight that is in memory has the same.
    pub(crate) fn address(&self) -> usize {
        let data = match self {
            CpuMatrix::Packed(matrix) => matrix.codes.as_ptr(),
            CpuMatrix::Interleaved(matrix) => matrix.data.as_ptr(),
            CpuMatrix::Plain(matrix) => matrix.data.as_ptr(),
        };
        data.addr()
    }

    /// Panics unless the byte lengths are what the shape says: the kernels read by address and rely on it.
    pub(crate) fn check(&self) {
        match self {
            CpuMatrix::Packed(matrix) => check_packed(matrix),
            CpuMatrix::Interleaved(matrix) => matrix.check(),
            CpuMatrix::Plain(PlainMatrix {
                rows,
                cols,
                float_type,
                data,
            }) => {
                let expected = rows * cols * float_type.size_bytes();
                assert_eq!(
                    data.len(),
                    expected,
                    "data of a plain {rows} x {cols} {float_type:?} matrix"
                );
            }
        }
    }
}

fn check_packed(matrix: &PackedMatrix) {
    let PackedMatrix {
        rows,
        cols,
        packing,
        scale_type,
        ..
    } = matrix;
    let shape = || format!("a packed {rows} x {cols} matrix, {packing:?}, {scale_type:?}");
    assert!(cols.is_multiple_of(packing.group()), "columns of {}", shape());
    let scale_bytes = rows * (cols / packing.group()) * scale_type.size_bytes();
    assert_eq!(
        matrix.codes.len(),
        rows * cols / 8 * packing.bits() as usize,
        "codes of {}",
        shape()
    );
    assert_eq!(matrix.scales.len(), scale_bytes, "scales of {}", shape());
    assert_eq!(matrix.biases.len(), scale_bytes, "biases of {}", shape());
}
