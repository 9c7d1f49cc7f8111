//! From specs to weights on the device.

use planish_ops::{Matrix, Ops, Packable};

use super::{LinearLayer, NormLayer, device_error};
use crate::source::{Supply, WeightSource};
use crate::{Error, LinearSpec, NormSpec, StackSpec};

/// What a device says of a weight that it was given.
type Placed<O> = Result<<O as Ops>::Weight, <O as Ops>::Error>;
/// What it says of one to pack.
type Packed<O> = Result<Option<<O as Ops>::Weight>, <O as Ops>::Error>;

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
        self.placed(spec, O::pack, O::weight)
    }

    /// A table whose rows are taken. // (rows, cols)
    pub(crate) fn table(&self, spec: &LinearSpec) -> Result<O::Weight, Error> {
        self.placed(spec, O::pack_table, O::table)
    }

    /// Packed by the device where the weight is to be packed and the device does that.
    fn placed(
        &self,
        spec: &LinearSpec,
        pack: fn(&O, &Packable) -> Packed<O>,
        place: fn(&O, Matrix) -> Placed<O>,
    ) -> Result<O::Weight, Error> {
        let supply = self.source.matrix(spec)?;
        if let Some(packable) = supply.packable()
            && let Some(weight) = pack(self.ops, &packable).map_err(device_error)?
        {
            supply.release();
            return Ok(weight);
        }
        place(self.ops, supply.on_host()?).map_err(device_error)
    }

    /// The matrices of every expert, (rows, cols) each, packed by the device likewise, or left packed where their columns are rows.
    pub(crate) fn stack(&self, spec: &StackSpec) -> Result<O::Stack, Error> {
        let supplies = self.source.stack(spec)?;
        let packables: Option<Vec<Packable>> = supplies.iter().map(Supply::packable).collect();
        if let Some(packables) = packables
            && let Some(stack) = self.ops.pack_stack(&packables).map_err(device_error)?
        {
            supplies.iter().for_each(Supply::release);
            return Ok(stack);
        }
        let transposed: Option<Vec<Matrix>> = supplies.iter().map(Supply::transposed).collect();
        if let Some(transposed) = transposed
            && let Some(stack) = self.ops.stack_transposed(&transposed).map_err(device_error)?
        {
            return Ok(stack);
        }
        let matrices: Result<Vec<Matrix>, Error> = supplies.into_iter().map(Supply::on_host).collect();
        self.ops.stack(matrices?).map_err(device_error)
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
