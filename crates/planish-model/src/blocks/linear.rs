//! A linear layer: packed or plain weight, optional bias.

use planish_ops::{Linear, Ops};

use super::{Loader, Pass};
use crate::{Error, LinearSpec, Stored};

pub(crate) struct LinearLayer<O: Ops> {
    pub(crate) weight: O::Weight,       // (rows, cols)
    pub(crate) bias: Option<O::Tensor>, // (1, rows)
}

impl<O: Ops> LinearLayer<O> {
    pub(crate) fn load(loader: &Loader<'_, O>, spec: &LinearSpec) -> Result<LinearLayer<O>, Error> {
        let weight = loader.weight(spec)?;
        if !spec.bias {
            return Ok(LinearLayer { weight, bias: None });
        }
        let usual = || format!("{}.bias", spec.name);
        let name = spec.bias_name.clone().unwrap_or_else(usual);
        let stored = loader.source.vector(&name, spec.stored_rows())?;
        let bias = match &spec.stored {
            Stored::Whole => stored,
            Stored::Rows { ranges, .. } => {
                let parts = ranges.iter().map(|range| &stored[range.clone()]);
                parts.collect::<Vec<_>>().concat()
            }
        };
        let bias = Some(loader.vector(&bias)?);
        Ok(LinearLayer { weight, bias })
    }
}

impl<O: Ops> LinearLayer<O> {
    /// From `input` (rows, cols) to the output of the pass.
    pub(crate) fn run(&self, pass: &mut Pass<'_, O>, input: &O::Tensor) {
        self.apply(pass.ops, pass.rows, input, pass.output);
    }

    /// From `input` (rows, cols) to `output` (rows, rows of the weight).
    pub(crate) fn apply(&self, ops: &O, rows: usize, input: &O::Tensor, output: &mut O::Tensor) {
        ops.linear(Linear {
            rows,
            input,
            weights: &[&self.weight],
            biases: &[self.bias.as_ref()],
            outputs: &mut [output],
        });
    }
}
