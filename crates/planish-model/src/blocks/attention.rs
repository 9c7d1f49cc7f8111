//! Self-attention: query, key and value from the normalized rows, rotation, cache, attention, output.

use planish_ops::{Append, Attention, Linear, Ops, RmsNorm, Rope};

use super::{LinearLayer, NormLayer, Pass, device_error};
use crate::clock::Phase;
use crate::source::WeightSource;
use crate::{AttentionSpec, Error};

pub(crate) struct AttentionBlock<O: Ops> {
    spec: AttentionSpec,
    query: LinearLayer<O>,
    key: LinearLayer<O>,
    value: LinearLayer<O>,
    output: LinearLayer<O>,
    query_norm: Option<NormLayer<O>>,
    key_norm: Option<NormLayer<O>>,
}

impl<O: Ops> AttentionBlock<O> {
    pub(crate) fn load(ops: &O, source: &dyn WeightSource, spec: &AttentionSpec) -> Result<AttentionBlock<O>, Error> {
        let linear = |spec| LinearLayer::load(ops, source, spec);
        let norm = |spec: &Option<_>| spec.as_ref().map(|spec| NormLayer::load(ops, source, spec)).transpose();
        Ok(AttentionBlock {
            query: linear(&spec.query)?,
            key: linear(&spec.key)?,
            value: linear(&spec.value)?,
            output: linear(&spec.output)?,
            query_norm: norm(&spec.query_norm)?,
            key_norm: norm(&spec.key_norm)?,
            spec: spec.clone(),
        })
    }

    /// From `normed` to `delta` of the workspace.
    pub(crate) fn run(&self, pass: &mut Pass<'_, O>, key_values: &mut O::KeyValues) -> Result<(), Error> {
        let Pass {
            ops,
            rows,
            first_position,
            workspace,
            clock,
        } = pass;
        let (rows, first_position) = (*rows, *first_position);
        ops.linear(Linear {
            rows,
            input: &workspace.normed,
            weights: &[&self.query.weight, &self.key.weight, &self.value.weight],
            biases: &[
                self.query.bias.as_ref(),
                self.key.bias.as_ref(),
                self.value.bias.as_ref(),
            ],
            outputs: &mut [&mut workspace.queries, &mut workspace.keys, &mut workspace.values],
        });
        clock.lap(Phase::Matmul);
        for (heads, norm) in [
            (&mut workspace.queries, &self.query_norm),
            (&mut workspace.keys, &self.key_norm),
        ] {
            if let Some(norm) = norm {
                let (weight, epsilon) = (&norm.weight, norm.epsilon);
                ops.rms_norm(RmsNorm {
                    rows: 0..rows,
                    hidden: heads,
                    residual: None,
                    weight,
                    epsilon,
                    output: None,
                });
            }
            if let Some(rope) = self.spec.rope {
                ops.rope(Rope {
                    rows,
                    heads,
                    head_dim: self.spec.head_dim,
                    angles: &workspace.angles[rope],
                });
            }
        }
        let (keys, values) = (&workspace.keys, &workspace.values);
        ops.append(Append {
            rows,
            first_position,
            keys,
            values,
            key_values: &mut *key_values,
        })
        .map_err(device_error)?;
        clock.lap(Phase::Other);
        ops.attention(Attention {
            rows,
            first_position,
            queries: &workspace.queries,
            heads: self.spec.heads,
            scale: self.spec.scale,
            window: self.spec.window,
            softcap: self.spec.softcap,
            key_values,
            output: &mut workspace.attended,
        });
        clock.lap(Phase::Attention);
        ops.linear(Linear {
            rows,
            input: &workspace.attended,
            weights: &[&self.output.weight],
            biases: &[self.output.bias.as_ref()],
            outputs: &mut [&mut workspace.delta],
        });
        clock.lap(Phase::Matmul);
        Ok(())
    }
}
