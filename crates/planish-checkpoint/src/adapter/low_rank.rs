//! What an adapter adds to the products of a packed weight: `W x + s B (A x)`, with the codes of `W` as they are stored.

use bytes::Bytes;
use planish_format::{FloatType, PackedMatrix, PackedShape};
use rayon::prelude::*;

use super::Adapted;
use crate::{Dtype, Error, Tensor, View, Weight};

/// A packed weight that an adapter changes, and what is added to its products.
#[derive(Clone, Debug)]
pub struct Beside {
    /// The weight without the adapter. Where rows have lengths (DoRA), its scales and biases are multiplied by what gives the sum
    /// with the adapter these lengths. // (rows, cols)
    pub weight: PackedMatrix,
    /// What is added.
    pub low_rank: LowRank,
}

/// `scale * B A`, of plain floats.
#[derive(Clone, Debug)]
pub struct LowRank {
    /// (rank, cols)
    pub a: Tensor,
    /// (rows, rank)
    pub b: Tensor,
    /// What the product is multiplied by.
    pub scale: f32,
}

impl Adapted<'_> {
    /// What the adapter does to `weight`, the stored one, if that is packed.
    pub fn beside(&self, weight: Weight) -> Result<Option<Beside>, Error> {
        let Weight::Packed(stored) = &weight else {
            return Ok(None);
        };
        let (rank, scale) = (self.change.rank, self.change.scale);
        let a = self.part(&self.change.a, [rank, stored.cols])?;
        let b = self.part(&self.change.b, [stored.rows, rank])?;
        Ok(Some(match self.row_factors(&weight)? {
            None => Beside {
                weight: stored.clone(),
                low_rank: LowRank { a, b, scale },
            },
            Some(factors) => Beside {
                weight: scaled(stored, &factors),
                low_rank: LowRank {
                    a,
                    b: scaled_rows(&b, &factors),
                    scale,
                },
            },
        }))
    }

    /// A or B as PEFT has it, of this shape.
    fn part(&self, name: &str, [rows, cols]: [usize; 2]) -> Result<Tensor, Error> {
        let missing = || self.wrong(format!("the adapter has no tensor `{name}`"));
        let tensor = self.adapter.tensors.read(name).ok_or_else(missing)?;
        Ok(match self.change.transposed {
            true => View::transpose(cols).apply(tensor, &[rows, cols]),
            false => tensor,
        })
    }

    /// What brings each row of the sum to its length. // (rows)
    fn row_factors(&self, weight: &Weight) -> Result<Option<Vec<f32>>, Error> {
        if self.change.lengths.is_none() {
            return Ok(None);
        }
        let (factors, base) = (self.factors()?, self.base(weight)?);
        let (rows, cols) = self.change.stored.rows_cols();
        let factor = |values: &mut Vec<f32>, row| self.row(row, &base, &factors, values);
        let rows = (0..rows).into_par_iter();
        Ok(rows.map_init(|| vec![0.0; cols], factor).collect())
    }
}

/// The same codes with scales and biases of f32, each row's multiplied by its factor.
fn scaled(matrix: &PackedMatrix, factors: &[f32]) -> PackedMatrix {
    let shape = matrix.shape();
    let scaled = |bytes: &Bytes| {
        let mut values = vec![0.0; bytes.len() / shape.scale_type.size_bytes()];
        shape.scale_type.decode(bytes, &mut values);
        bytes_of(&mut values, factors)
    };
    let shape =
        PackedShape::new(shape.rows, shape.cols, shape.packing, FloatType::F32).expect("a shape that was there");
    let (scales, biases) = (scaled(&matrix.scales), scaled(&matrix.biases));
    PackedMatrix::new(shape, matrix.codes.clone(), scales, biases).expect("as many bytes as the shape says")
}

/// The same in f32, each row multiplied by its factor.
fn scaled_rows(tensor: &Tensor, factors: &[f32]) -> Tensor {
    let mut values = super::floats(tensor).expect("floats, when the adapter was opened");
    Tensor {
        dtype: Dtype::F32,
        shape: tensor.shape.clone(),
        data: bytes_of(&mut values, factors),
    }
}

/// Rows of equal length, as many as factors.
fn bytes_of(values: &mut [f32], factors: &[f32]) -> Bytes {
    let width = values.len() / factors.len().max(1);
    for (row, factor) in values.chunks_exact_mut(width.max(1)).zip(factors) {
        row.iter_mut().for_each(|value| *value *= factor);
    }
    let mut bytes = vec![0; size_of_val(values)];
    FloatType::F32.encode(values, &mut bytes);
    bytes.into()
}
