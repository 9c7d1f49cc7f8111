//! From specs to weights on the device.

use planish_ops::{Ops, PlaceError, Use};

use super::{LinearLayer, NormLayer, device_error};
use crate::source::{PendingWeight, WeightSource};
use crate::{Error, LinearSpec, NormSpec, StackSpec};

/// Where weights come from and go to.
pub(crate) struct Loader<'a, O: Ops> {
    /// The device.
    pub(crate) ops: &'a O,
    /// The checkpoint.
    pub(crate) source: &'a dyn WeightSource,
}

impl<O: Ops> Loader<'_, O> {
    /// A weight without its bias. // (rows, cols)
    pub(crate) fn weight(&self, spec: &LinearSpec) -> Result<O::Weight, Error> {
        self.placed(spec, Use::Linear)
    }

    /// A table whose rows are taken. // (rows, cols)
    pub(crate) fn table(&self, spec: &LinearSpec) -> Result<O::Weight, Error> {
        self.placed(spec, Use::Table)
    }

    /// A table that no checkpoint holds. // (values.len() / cols, cols)
    pub(crate) fn made_table(&self, cols: usize, values: Vec<f32>) -> Result<O::Weight, Error> {
        let matrix = PendingWeight::made(cols, &values);
        self.ops.place(matrix, Use::Table).map_err(place_error)
    }

    fn placed(&self, spec: &LinearSpec, use_as: Use) -> Result<O::Weight, Error> {
        let weight = self.source.matrix(spec)?;
        let weight = self.ops.place(weight, use_as).map_err(place_error)?;
        self.ops.name(&weight, &|| self.source.origin(spec));
        Ok(weight)
    }

    /// The matrices of every expert, (rows, cols) each.
    pub(crate) fn stack(&self, spec: &StackSpec) -> Result<O::Stack, Error> {
        let weights = self.source.stack(spec)?;
        let stack = self.ops.place_stack(weights).map_err(place_error)?;
        self.ops.name_stack(&stack, &|| self.source.stack_origins(spec));
        Ok(stack)
    }

    /// A weight with its bias, if it has one.
    pub(crate) fn linear(&self, spec: &LinearSpec) -> Result<LinearLayer<O>, Error> {
        LinearLayer::load(self, spec)
    }

    /// A norm.
    pub(crate) fn norm(&self, spec: &NormSpec) -> Result<NormLayer<O>, Error> {
        NormLayer::load(self, spec)
    }

    /// A norm where there is one.
    pub(crate) fn optional_norm(&self, spec: &Option<NormSpec>) -> Result<Option<NormLayer<O>>, Error> {
        spec.as_ref().map(|spec| self.norm(spec)).transpose()
    }

    /// Values on the device. // (1, values.len())
    pub(crate) fn vector(&self, values: &[f32]) -> Result<O::Tensor, Error> {
        self.ops.vector(values).map_err(device_error)
    }
}

fn place_error<D: std::error::Error + Send + Sync + 'static>(error: PlaceError<D, Error>) -> Error {
    match error {
        PlaceError::Device(error) => device_error(error),
        PlaceError::Weight(error) => error,
    }
}
