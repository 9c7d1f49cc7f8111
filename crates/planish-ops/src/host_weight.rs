//! A weight in the host's memory on its way to a device: what a device may take of it, and the matrix that the host makes of it for
//! every other device.

use std::convert::Infallible;

use planish_format::{Encoder, FloatType, PackedMatrix, Packing};

use crate::{Matrix, PlainMatrix};

/// A weight (rows, cols) that a device is to have. What it was read from is needed until it is dropped.
pub trait HostWeight {
    /// What can be wrong with its values.
    type Error: std::fmt::Debug;

    /// What a device may take. Bytes are shared, not copied.
    fn form(&self) -> HostForm;

    /// As a matrix, made by the host where it must be. // (rows, cols)
    ///
    /// # Errors
    /// Values that cannot be packed.
    fn into_matrix(self) -> Result<Matrix, Self::Error>;
}

/// What a device may take of a weight.
#[derive(Clone, Debug)]
pub enum HostForm {
    /// As it stays; [`HostWeight::into_matrix`] gives the same.
    Ready(Matrix),
    /// Columns are stored as rows, and packed along these. // (cols, rows)
    Transposed(PackedMatrix),
    /// Plain values to be packed by the rules of `planish_format::quantize`, bit for bit.
    ToPack(ToPack),
    /// What only the host can make.
    HostOnly,
}

/// Plain values, and how they are to be packed.
#[derive(Clone, Debug)]
pub struct ToPack {
    /// The values. // (rows, cols)
    pub plain: PlainMatrix,
    /// Bits and group; the group divides the columns.
    pub packing: Packing,
    /// How codes are chosen.
    pub encoder: Encoder,
    /// Type that the values are rounded to first, and of scales and biases.
    pub scale_type: FloatType,
    /// Take NaN and infinity for what the arithmetic makes of them. Otherwise a device leaves them to the host, which refuses them.
    pub allow_non_finite: bool,
}

impl HostWeight for Matrix {
    type Error = Infallible;

    fn form(&self) -> HostForm {
        HostForm::Ready(self.clone())
    }

    fn into_matrix(self) -> Result<Matrix, Infallible> {
        Ok(self)
    }
}

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// [`crate::Ops::linear`] multiplies by it.
    Linear,
    /// [`crate::Ops::embed`] takes its rows; [`crate::Ops::linear`] may multiply by it too.
    Table,
}

/// Why a device has not got a weight.
#[derive(Debug)]
pub enum PlaceError<D, W> {
    /// The device is out of memory, or was lost.
    Device(D),
    /// The weight cannot be what it is to be.
    Weight(W),
}
