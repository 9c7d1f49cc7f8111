//! A linear layer: packed or plain weight, optional bias.

use planish_ops::Ops;

use super::device_error;
use crate::source::WeightSource;
use crate::{Error, LinearSpec};

pub(crate) struct LinearLayer<O: Ops> {
    pub(crate) weight: O::Weight,       // (rows, cols)
    pub(crate) bias: Option<O::Tensor>, // (1, rows)
}

impl<O: Ops> LinearLayer<O> {
    pub(crate) fn load(ops: &O, source: &dyn WeightSource, spec: &LinearSpec) -> Result<LinearLayer<O>, Error> {
        let matrix = source.matrix(&format!("{}.weight", spec.name), spec.rows, spec.cols)?;
        let bias = match spec.bias {
            true => Some(
                ops.vector(&source.vector(&format!("{}.bias", spec.name), spec.rows)?)
                    .map_err(device_error)?,
            ),
            false => None,
        };
        Ok(LinearLayer {
            weight: ops.weight(matrix).map_err(device_error)?,
            bias,
        })
    }
}
