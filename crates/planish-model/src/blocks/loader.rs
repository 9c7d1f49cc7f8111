//! From specs to weights on the device.

use std::cell::RefCell;

use planish_ops::{Ops, PlaceError, Use};

use super::linear::{Adapted, LowRankLayer};
use super::{LinearLayer, NormLayer, device_error};
use crate::source::{PendingLowRank, PendingWeight, WeightSource};
use crate::workspace::AdapterSizes;
use crate::{Error, LinearSpec, NormSpec, StackSpec};

/// Where weights come from and go to.
pub(crate) struct Loader<'a, O: Ops> {
    /// The device.
    pub(crate) ops: &'a O,
    /// The checkpoint.
    pub(crate) source: &'a dyn WeightSource,
    /// What the adapters of the layers that were loaded need.
    pub(crate) adapters: RefCell<AdapterSizes>,
}

impl<'a, O: Ops> Loader<'a, O> {
    pub(crate) fn new(ops: &'a O, source: &'a dyn WeightSource) -> Loader<'a, O> {
        let adapters = RefCell::default();
        Loader { ops, source, adapters }
    }
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

    /// A packed weight without its adapter, and that; `None` where the weight is all there is.
    pub(super) fn adapted(&self, spec: &LinearSpec) -> Result<Option<Adapted<O>>, Error> {
        let Some((weight, low_rank)) = self.source.adapted(spec)? else {
            return Ok(None);
        };
        let PendingLowRank { a, b, rank, scale } = low_rank;
        self.adapters.borrow_mut().add(rank, spec.rows);
        let place = |weight| self.ops.place(weight, Use::Linear).map_err(place_error);
        let (a, b) = (place(a)?, place(b)?);
        Ok(Some((place(weight)?, LowRankLayer { a, b, scale })))
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

    /// A layer of a block, with its bias, if it has one, and its adapter.
    pub(crate) fn linear(&self, spec: &LinearSpec) -> Result<LinearLayer<O>, Error> {
        LinearLayer::load(self, spec)
    }

    /// The same with the adapter merged: for layers outside of blocks, which have no tensors for it, and for those that leave f32.
    pub(crate) fn merged_linear(&self, spec: &LinearSpec) -> Result<LinearLayer<O>, Error> {
        LinearLayer::load_merged(self, spec)
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
