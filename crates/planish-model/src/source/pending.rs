//! Weights on their way from a source to a device.

use bytes::Bytes;
use planish_checkpoint::{Checkpoint, Entry, Tensor, View, Weight};
use planish_format::{FloatType, PackedMatrix, Packing, memory};
use planish_ops::{HostForm, HostWeight, Matrix, PlainMatrix, ToPack};
use planish_quantize::{Method, Recipe, pack_weight};

use crate::Error;

/// A weight of a source, as it is given to a device. // (rows, cols)
pub(crate) enum PendingWeight<'a> {
    /// As it stays.
    Ready(Matrix),
    /// To be packed, by the device or the host.
    ToPack(Unpacked<'a>),
    /// Packed, its columns stored as rows, and the type to unpack it to. // (cols, rows)
    Transposed(PackedMatrix, FloatType),
}

/// `scale * B A`, beside a weight (rows, cols).
pub(crate) struct PendingLowRank<'a> {
    pub(crate) a: PendingWeight<'a>, // (rank, cols)
    pub(crate) b: PendingWeight<'a>, // (rows, rank)
    pub(crate) rank: usize,
    pub(crate) scale: f32,
}

/// A weight that the recipe packs. Its pages may go when it is dropped.
pub(crate) struct Unpacked<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) entry: &'a Entry,
    pub(super) weight: Weight,
    pub(super) shape: (usize, usize), // (rows, cols)
    pub(super) recipe: &'a Recipe,
    pub(super) packing: Packing,
}

impl PendingWeight<'_> {
    /// Of values that stand in no checkpoint. // (values.len() / cols, cols)
    pub(crate) fn made(cols: usize, values: &[f32]) -> PendingWeight<'static> {
        let mut data = memory::with_room("weights", size_of_val(values));
        values
            .iter()
            .for_each(|value| data.extend_from_slice(&value.to_le_bytes()));
        let shape = (values.len() / cols, cols);
        PendingWeight::Ready(Matrix::Plain(plain(shape, FloatType::F32, data.into())))
    }
}

impl Unpacked<'_> {
    /// What a device may pack: plain floats.
    fn to_pack(&self) -> Option<ToPack> {
        let Weight::Plain(tensor) = &self.weight else {
            return None;
        };
        let Method::Peer(encoder) = self.recipe.method else {
            return None;
        };
        let float_type = tensor.dtype.float_type()?;
        Some(ToPack {
            plain: plain(self.shape, float_type, tensor.data.clone()),
            packing: self.packing,
            encoder,
            scale_type: self.recipe.dtype.unwrap_or(float_type),
            allow_non_finite: self.recipe.allow_non_finite,
        })
    }
}

impl Drop for Unpacked<'_> {
    fn drop(&mut self) {
        self.checkpoint.release(self.entry);
    }
}

impl HostWeight for PendingWeight<'_> {
    type Error = Error;

    fn form(&self) -> HostForm {
        match self {
            PendingWeight::Ready(matrix) => HostForm::Ready(matrix.clone()),
            PendingWeight::ToPack(unpacked) => unpacked.to_pack().map_or(HostForm::HostOnly, HostForm::ToPack),
            PendingWeight::Transposed(matrix, _) => HostForm::Transposed(matrix.clone()),
        }
    }

    fn into_matrix(self) -> Result<Matrix, Error> {
        match self {
            PendingWeight::Ready(matrix) => Ok(matrix),
            PendingWeight::ToPack(unpacked) => {
                let Unpacked {
                    entry,
                    weight,
                    recipe,
                    packing,
                    ..
                } = &unpacked;
                Ok(Matrix::Packed(pack_weight(&entry.name, weight, *packing, recipe)?))
            }
            PendingWeight::Transposed(matrix, float_type) => {
                let Tensor { shape, data, .. } = transposed(Tensor::unpacked(&matrix, float_type));
                Ok(Matrix::Plain(plain((shape[0], shape[1]), float_type, data)))
            }
        }
    }
}

pub(super) fn plain((rows, cols): (usize, usize), float_type: FloatType, data: Bytes) -> PlainMatrix {
    PlainMatrix {
        rows,
        cols,
        float_type,
        data,
    }
}

/// A plain tensor with columns as rows. // (cols, rows) to (rows, cols)
pub(super) fn transposed(tensor: Tensor) -> Tensor {
    let (cols, rows) = tensor.rows_cols();
    View::transpose(cols).apply(tensor, &[rows, cols])
}
