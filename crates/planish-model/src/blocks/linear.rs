//! A linear layer: packed or plain weight, optional bias, and what an adapter adds where its weight is packed.

use planish_ops::{Add, Linear, Ops, Shape};
use smallvec::SmallVec;

use super::{Loader, Pass};
use crate::workspace::AdapterTensors;
use crate::{Error, LinearSpec, Stored};

/// Layers that read one input, at most: query, key and value.
const MOST_LAYERS: usize = 4;

pub(crate) struct LinearLayer<O: Ops> {
    pub(crate) weight: O::Weight,       // (rows, cols)
    pub(crate) bias: Option<O::Tensor>, // (1, rows)
    pub(crate) low_rank: Option<LowRankLayer<O>>,
}

/// `scale * B (A x)`.
pub(crate) struct LowRankLayer<O: Ops> {
    pub(super) a: O::Weight, // (rank, cols)
    pub(super) b: O::Weight, // (rows, rank)
    pub(super) scale: f32,
}

/// A packed weight, and the adapter beside it.
pub(super) type Adapted<O> = (<O as Ops>::Weight, LowRankLayer<O>);

impl<O: Ops> LinearLayer<O> {
    /// With the adapter merged into the weight.
    pub(super) fn load_merged(loader: &Loader<'_, O>, spec: &LinearSpec) -> Result<LinearLayer<O>, Error> {
        Ok(LinearLayer {
            weight: loader.weight(spec)?,
            bias: load_bias(loader, spec)?,
            low_rank: None,
        })
    }

    /// With the adapter beside the weight where that is packed.
    pub(super) fn load(loader: &Loader<'_, O>, spec: &LinearSpec) -> Result<LinearLayer<O>, Error> {
        let Some((weight, low_rank)) = loader.adapted(spec)? else {
            return LinearLayer::load_merged(loader, spec);
        };
        Ok(LinearLayer {
            weight,
            bias: load_bias(loader, spec)?,
            low_rank: Some(low_rank),
        })
    }

    /// From `input` (rows, cols) to the output of the pass.
    pub(crate) fn run(&self, pass: &mut Pass<'_, O>, input: &O::Tensor) {
        run(
            pass.ops,
            pass.rows,
            input,
            &[self],
            &mut [&mut *pass.output],
            pass.adapters,
        );
    }
}

fn load_bias<O: Ops>(loader: &Loader<'_, O>, spec: &LinearSpec) -> Result<Option<O::Tensor>, Error> {
    if !spec.bias {
        return Ok(None);
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
    loader.vector(&bias).map(Some)
}

impl<O: Ops> LinearLayer<O> {
    /// From `input` (rows, cols) to `output` (rows, rows of the weight), for a layer with its adapter merged.
    pub(crate) fn apply(&self, ops: &O, rows: usize, input: &O::Tensor, output: &mut O::Tensor) {
        assert!(self.low_rank.is_none(), "an adapter beside a layer outside of blocks");
        ops.linear(Linear {
            rows,
            input,
            weights: &[&self.weight],
            biases: &[self.bias.as_ref()],
            outputs: &mut [output],
        });
    }
}

impl<O: Ops> Pass<'_, O> {
    /// From `input` (rows, cols) to the output of each layer. // outputs: (rows, its rows)
    pub(crate) fn linear(&mut self, input: &O::Tensor, layers: &[&LinearLayer<O>], outputs: &mut [&mut O::Tensor]) {
        run(self.ops, self.rows, input, layers, outputs, self.adapters);
    }
}

fn run<O: Ops>(
    ops: &O,
    rows: usize,
    input: &O::Tensor,
    layers: &[&LinearLayer<O>],
    outputs: &mut [&mut O::Tensor],
    adapters: &mut AdapterTensors<O>,
) {
    let weights: SmallVec<[&O::Weight; MOST_LAYERS]> = layers.iter().map(|layer| &layer.weight).collect();
    let biases: SmallVec<[Option<&O::Tensor>; MOST_LAYERS]> = layers.iter().map(|layer| layer.bias.as_ref()).collect();
    ops.linear(Linear {
        rows,
        input,
        weights: &weights,
        biases: &biases,
        outputs: &mut *outputs,
    });
    for (layer, target) in layers.iter().zip(outputs) {
        let Some(LowRankLayer { a, b, scale }) = &layer.low_rank else {
            continue;
        };
        let (reduced, added) = adapters.of(a.rows(), b.rows());
        multiply(ops, rows, input, a, reduced);
        multiply(ops, rows, reduced, b, added);
        ops.add(Add {
            rows,
            target,
            source: added,
            factor: *scale,
        });
    }
}

/// A product without a bias.
fn multiply<O: Ops>(ops: &O, rows: usize, input: &O::Tensor, weight: &O::Weight, output: &mut O::Tensor) {
    ops.linear(Linear {
        rows,
        input,
        weights: &[weight],
        biases: &[None],
        outputs: &mut [output],
    });
}
