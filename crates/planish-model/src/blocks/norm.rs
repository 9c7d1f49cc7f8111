//! A normalization with its weight: offset and scale of the spec are folded into it.

use std::ops::Range;

use planish_ops::{Norm, NormKind, Ops};

use super::Loader;
use crate::{Error, NormSpec};

pub(crate) struct NormLayer<O: Ops> {
    kind: NormKind,
    width: usize,
    epsilon: f32,
    weight: Option<O::Tensor>, // (1, size)
    bias: Option<O::Tensor>,   // (1, size)
}

impl<O: Ops> NormLayer<O> {
    pub(crate) fn load(loader: &Loader<'_, O>, spec: &NormSpec) -> Result<NormLayer<O>, Error> {
        let size = spec.size / spec.pieces.unwrap_or(1);
        // Weights that every head has for itself stand one head a row.
        let shapes: [&[usize]; 2] = [&[size], &[size / spec.width, spec.width]];
        let piece = |path: &str, part: &str| loader.source.values(&format!("{path}.{part}"), &shapes);
        let stored = |part: &str| match spec.pieces {
            None if part == "weight" && spec.stored.is_some() => {
                let name = spec.stored.as_deref().unwrap_or_default();
                loader.source.values(name, &shapes)
            }
            None => piece(&spec.name, part),
            Some(pieces) => {
                let pieces = (0..pieces).map(|index| piece(&format!("{}.{index}", spec.name), part));
                Ok(pieces.collect::<Result<Vec<_>, Error>>()?.concat())
            }
        };
        let scaled = |mut values: Vec<f32>, offset: f32| {
            values
                .iter_mut()
                .for_each(|value| *value = (*value + offset) * spec.scale);
            loader.vector(&values)
        };
        let weight = match (spec.weight, spec.scale != 1.0) {
            (true, _) => Some(scaled(stored("weight")?, spec.offset)?),
            (false, true) => Some(scaled(vec![1.0; spec.size], 0.0)?),
            (false, false) => None,
        };
        let bias = match spec.bias {
            true => Some(scaled(stored("bias")?, 0.0)?),
            false => None,
        };
        Ok(NormLayer {
            kind: spec.kind,
            width: spec.width,
            epsilon: spec.epsilon,
            weight,
            bias,
        })
    }

    /// The norm of some rows in place; callers add a residual and an output where they want them.
    pub(crate) fn of<'a>(&'a self, rows: Range<usize>, hidden: &'a mut O::Tensor) -> Norm<'a, O> {
        Norm {
            kind: self.kind,
            rows,
            width: self.width,
            hidden,
            residual: None,
            weight: self.weight.as_ref(),
            bias: self.bias.as_ref(),
            epsilon: self.epsilon,
            output: None,
        }
    }
}
