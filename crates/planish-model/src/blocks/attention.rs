//! Self-attention: query, key and value from the input, norms, rotation, cache, attention, output.

use planish_ops::{Activation, Alibi, Append, Attention, CopyRows, Gate, KeyValueSizes, Ops, Rope, Rotation};

use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass, device_error};
use crate::workspace::TensorSize;
use crate::{AttentionSpec, Error};

pub(super) struct AttentionBlock<O: Ops> {
    spec: AttentionSpec,
    query: LinearLayer<O>,
    key: Option<LinearLayer<O>>,   // `None` shares what another layer stored
    value: Option<LinearLayer<O>>, // `None` takes the keys
    output: LinearLayer<O>,
    gate: Option<(LinearLayer<O>, Activation)>,
    query_norm: Option<NormLayer<O>>,
    key_norm: Option<NormLayer<O>>,
    value_norm: Option<NormLayer<O>>,
    output_norm: Option<NormLayer<O>>,
    sinks: Option<O::Tensor>,  // (1, heads)
    slopes: Option<O::Tensor>, // (1, heads), of the linear biases
}

impl<O: Ops> AttentionBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &AttentionSpec) -> Result<AttentionBlock<O>, Error> {
        Ok(AttentionBlock {
            query: loader.linear(&spec.query)?,
            key: match spec.shares {
                Some(_) => None,
                None => Some(loader.linear(&spec.key)?),
            },
            value: match spec.shares.is_some() || spec.value == spec.key {
                true => None,
                false => Some(loader.linear(&spec.value)?),
            },
            output: loader.linear(&spec.output)?,
            gate: match &spec.gate {
                Some(gate) => Some((loader.linear(&gate.layer)?, gate.activation)),
                None => None,
            },
            query_norm: loader.optional_norm(&spec.query_norm)?,
            key_norm: loader.optional_norm(&spec.key_norm)?,
            value_norm: loader.optional_norm(&spec.value_norm)?,
            output_norm: loader.optional_norm(&spec.output_norm)?,
            sinks: match &spec.sinks {
                Some(name) => Some(loader.vector(&loader.source.vector(name, spec.heads)?)?),
                None => None,
            },
            slopes: match &spec.alibi {
                Some(alibi) => Some(loader.vector(&alibi.slopes)?),
                None => None,
            },
            spec: spec.clone(),
        })
    }

    fn alibi(&self) -> Option<Alibi<'_, O>> {
        let slopes = self.slopes.as_ref()?;
        let rule = self.spec.alibi.as_ref()?.rule;
        Some(Alibi { slopes, rule })
    }

    /// `gated = activation(gate(input)) * attended`.
    fn run_gate(
        &self,
        pass: &mut Pass<'_, O>,
        (gate, activation): &(LinearLayer<O>, Activation),
        gated: &mut O::Tensor,
        attended: &O::Tensor,
    ) {
        pass.linear(pass.input, &[gate], &mut [&mut *gated]);
        pass.ops.gate(Gate {
            rows: pass.rows,
            activation: *activation,
            gate: gated,
            up: Some(attended),
        });
    }

    /// Queries, keys and values as they come, values normalized where they are.
    fn project<'a>(&'a self, pass: &mut Pass<'_, O>, [queries, keys, values]: [&mut O::Tensor; 3]) {
        // The others where they have layers of their own.
        let or_query = |layer: &'a Option<LinearLayer<O>>| layer.as_ref().unwrap_or(&self.query);
        let layers = [&self.query, or_query(&self.key), or_query(&self.value)];
        let count = 1 + usize::from(self.key.is_some()) + usize::from(self.value.is_some());
        let outputs = &mut [&mut *queries, &mut *keys, &mut *values][..count];
        pass.linear(pass.input, &layers[..count], outputs);
        if let Some(limit) = self.spec.clip {
            for gate in [queries, &mut *keys, &mut *values] {
                pass.ops.gate(Gate {
                    rows: pass.rows,
                    activation: Activation::Clamp(limit),
                    gate,
                    up: None,
                });
            }
        }
        if self.key.is_none() {
            return;
        }
        if self.value.is_none() {
            pass.ops.copy_rows(CopyRows {
                source: Some(keys),
                from: 0,
                target: values,
                to: 0,
                rows: pass.rows,
            });
        }
        if let Some(norm) = &self.value_norm {
            pass.ops.norm(norm.of(0..pass.rows, values));
        }
    }

    /// Norms, rotation, and keys and values to the cache.
    fn place(
        &self,
        pass: &Pass<'_, O>,
        [queries, keys, values]: [&mut O::Tensor; 3],
        key_values: &mut O::KeyValues,
    ) -> Result<(), Error> {
        let late = self.spec.norm_after_rope;
        if !late {
            self.normalize(pass, queries, keys);
        }
        let rope = self.spec.rope.map(|rope| &pass.angles[rope]);
        if late {
            for (heads, angles) in [&mut *queries, &mut *keys].into_iter().zip([rope; 2]) {
                let Some(angles) = angles else { break };
                pass.ops.rope(Rope {
                    rows: pass.rows,
                    heads,
                    head_dim: self.spec.head_dim,
                    angles: &angles.tensor,
                    pairs: angles.pairs,
                });
            }
            self.normalize(pass, queries, keys);
        }
        let rotation = rope.filter(|_| !late).map(|angles| Rotation {
            queries,
            head_dim: self.spec.head_dim,
            angles: &angles.tensor,
            pairs: angles.pairs,
        });
        if self.key.is_none() {
            return self.rotate(pass, rotation);
        }
        let append = Append {
            places: pass.places,
            rotation,
            keys,
            values,
            key_values,
        };
        pass.ops.append(append).map_err(device_error)
    }

    /// Queries alone: keys are another layer's.
    fn rotate(&self, pass: &Pass<'_, O>, rotation: Option<Rotation<'_, O>>) -> Result<(), Error> {
        if let Some(rotation) = rotation {
            pass.ops.rope(Rope {
                rows: pass.rows,
                heads: rotation.queries,
                head_dim: rotation.head_dim,
                angles: rotation.angles,
                pairs: rotation.pairs,
            });
        }
        Ok(())
    }

    /// Norms of queries and keys, where there are any.
    fn normalize(&self, pass: &Pass<'_, O>, queries: &mut O::Tensor, keys: &mut O::Tensor) {
        for (norm, heads) in [(&self.query_norm, queries), (&self.key_norm, keys)] {
            if let Some(norm) = norm {
                pass.ops.norm(norm.of(0..pass.rows, heads));
            }
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
        let gate = self.spec.gate.as_ref().map(|gate| gate.layer.rows);
        let cols = [query.rows, key.rows, value.rows, output.cols];
        cols.into_iter().chain(gate).map(TensorSize::row).collect()
    }

    fn state(&self, ops: &O, _slots: usize) -> Result<BlockState<O>, Error> {
        if self.key.is_none() {
            return Ok(BlockState::Nothing);
        }
        let key_values = ops.key_values(KeyValueSizes {
            heads: self.spec.kv_heads,
            head_dim: self.spec.head_dim,
            value_dim: self.spec.value_dim,
            window: self.spec.window,
        });
        Ok(BlockState::KeyValues(key_values.map_err(device_error)?))
    }

    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error> {
        let BlockState::KeyValues(key_values) = state else {
            unreachable!("attention made keys and values")
        };
        let [queries, keys, values, attended, gates @ ..] = std::mem::take(&mut pass.tensors) else {
            unreachable!("as many as tensors() says")
        };
        self.project(pass, [&mut *queries, &mut *keys, &mut *values]);
        self.place(pass, [&mut *queries, keys, values], key_values)?;
        pass.ops.attention(Attention {
            places: pass.places,
            queries,
            heads: self.spec.heads,
            scale: self.spec.scale,
            temperature_tuning: self.spec.temperature_tuning,
            window: self.spec.window,
            softcap: self.spec.softcap,
            alibi: self.alibi(),
            sinks: self.sinks.as_ref(),
            key_values,
            output: attended,
        });
        if let Some(norm) = &self.output_norm {
            pass.ops.norm(norm.of(0..pass.rows, attended));
        }
        match (&self.gate, gates) {
            (Some(gate), [gated]) => {
                self.run_gate(pass, gate, gated, attended);
                self.output.run(pass, gated);
            }
            _ => self.output.run(pass, attended),
        }
        Ok(())
    }
}
