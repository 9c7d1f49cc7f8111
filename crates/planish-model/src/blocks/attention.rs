//! Self-attention: query, key and value from the input, norms, rotation, cache, attention, output.

use planish_ops::{Append, Attention, Linear, Ops, Rope};

use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass, device_error};
use crate::clock::Phase;
use crate::workspace::TensorSize;
use crate::{AttentionSpec, Error};

pub(super) struct AttentionBlock<O: Ops> {
    spec: AttentionSpec,
    query: LinearLayer<O>,
    key: LinearLayer<O>,
    value: LinearLayer<O>,
    output: LinearLayer<O>,
    query_norm: Option<NormLayer<O>>,
    key_norm: Option<NormLayer<O>>,
}

impl<O: Ops> AttentionBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &AttentionSpec) -> Result<AttentionBlock<O>, Error> {
        Ok(AttentionBlock {
            query: loader.linear(&spec.query)?,
            key: loader.linear(&spec.key)?,
            value: loader.linear(&spec.value)?,
            output: loader.linear(&spec.output)?,
            query_norm: loader.optional_norm(&spec.query_norm)?,
            key_norm: loader.optional_norm(&spec.key_norm)?,
            spec: spec.clone(),
        })
    }

    /// Norm and rotation of queries or keys.
    fn place(&self, pass: &Pass<'_, O>, norm: Option<&NormLayer<O>>, heads: &mut O::Tensor) {
        if let Some(norm) = norm {
            pass.ops.norm(norm.of(0..pass.rows, heads));
        }
        if let Some(rope) = self.spec.rope {
            pass.ops.rope(Rope {
                rows: pass.rows,
                heads,
                head_dim: self.spec.head_dim,
                angles: &pass.angles[rope],
            });
        }
    }
}

impl<O: Ops> Block<O> for AttentionBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        let AttentionSpec {
            query,
            key,
            value,
            output,
            ..
        } = &self.spec;
        [query.rows, key.rows, value.rows, output.cols]
            .map(TensorSize::row)
            .into()
    }

    fn state(&self, ops: &O) -> Result<BlockState<O>, Error> {
        let key_values = ops.key_values(self.spec.kv_heads, self.spec.head_dim);
        Ok(BlockState::KeyValues(key_values.map_err(device_error)?))
    }

    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error> {
        let BlockState::KeyValues(key_values) = state else {
            unreachable!("attention made keys and values")
        };
        let [queries, keys, values, attended] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        let (ops, rows, first_position) = (pass.ops, pass.rows, pass.first_position);
        ops.linear(Linear {
            rows,
            input: pass.input,
            weights: &[&self.query.weight, &self.key.weight, &self.value.weight],
            biases: &[
                self.query.bias.as_ref(),
                self.key.bias.as_ref(),
                self.value.bias.as_ref(),
            ],
            outputs: &mut [&mut *queries, &mut *keys, &mut *values],
        });
        pass.clock.lap(Phase::Matmul);
        self.place(pass, self.query_norm.as_ref(), queries);
        self.place(pass, self.key_norm.as_ref(), keys);
        let append = Append {
            rows,
            first_position,
            keys,
            values,
            key_values,
        };
        ops.append(append).map_err(device_error)?;
        pass.clock.lap(Phase::Other);
        ops.attention(Attention {
            rows,
            first_position,
            queries,
            heads: self.spec.heads,
            scale: self.spec.scale,
            window: self.spec.window,
            softcap: self.spec.softcap,
            key_values,
            output: attended,
        });
        pass.clock.lap(Phase::Attention);
        self.output.run(pass, attended);
        Ok(())
    }
}
