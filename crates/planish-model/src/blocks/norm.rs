//! A normalization with its weight.

use planish_ops::Ops;

use super::device_error;
use crate::source::WeightSource;
use crate::{Error, NormKind, NormSpec};

pub(crate) struct NormLayer<O: Ops> {
    pub(crate) weight: O::Tensor, // (1, size)
    pub(crate) epsilon: f32,
}

impl<O: Ops> NormLayer<O> {
    pub(crate) fn load(ops: &O, source: &dyn WeightSource, spec: &NormSpec) -> Result<NormLayer<O>, Error> {
        let NormKind::Rms = spec.kind;
        let weight = source.vector(&format!("{}.weight", spec.name), spec.size)?;
        Ok(NormLayer {
            weight: ops.vector(&weight).map_err(device_error)?,
            epsilon: spec.epsilon,
        })
    }
}
