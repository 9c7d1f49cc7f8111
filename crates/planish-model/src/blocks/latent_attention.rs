//! Latent attention with its matrices absorbed: queries are taken to the space of latent vectors, which are keys and values
//! of one shared head, and what attention gives is taken to the values of each head.

use planish_ops::{Append, Attention, CopyHeads, HeadLinear, HeadPart, KeyValueSizes, Ops, Rope, Shape};

use super::{Block, BlockState, LinearLayer, Loader, NormLayer, Pass, device_error};
use crate::workspace::TensorSize;
use crate::{Error, LatentAttentionSpec, LatentQuerySpec};

pub(super) struct LatentAttentionBlock<O: Ops> {
    spec: LatentAttentionSpec,
    query: LinearLayer<O>, // (heads * (unrotated + rotated), hidden or fewer)
    reduction: Option<Reduction<O>>,
    latent: LinearLayer<O>, // (latent, hidden)
    latent_norm: NormLayer<O>,
    rotated_key: LinearLayer<O>, // (rotated, hidden)
    embed_query: O::Stack,       // heads times (latent, unrotated)
    value: O::Stack,             // heads times (value, latent)
    output: LinearLayer<O>,      // (hidden, heads * value)
}

/// What queries go through first.
struct Reduction<O: Ops> {
    down: LinearLayer<O>, // (fewer, hidden)
    norm: NormLayer<O>,
    fewer: usize,
}

/// Tensors of a pass.
struct Tensors<'a, O: Ops> {
    whole_queries: &'a mut O::Tensor,   // (rows, heads * (unrotated + rotated))
    rotated_queries: &'a mut O::Tensor, // (rows, heads * rotated)
    queries: &'a mut O::Tensor,         // (rows, heads * (latent + rotated))
    latent: &'a mut O::Tensor,          // (rows, latent)
    rotated_key: &'a mut O::Tensor,     // (rows, rotated)
    keys: &'a mut O::Tensor,            // (rows, latent + rotated)
    attended: &'a mut O::Tensor,        // (rows, heads * latent)
    values: &'a mut O::Tensor,          // (rows, heads * value)
    fewer: Option<&'a mut O::Tensor>,   // (rows, fewer)
}

impl<O: Ops> LatentAttentionBlock<O> {
    pub(super) fn load(loader: &Loader<'_, O>, spec: &LatentAttentionSpec) -> Result<LatentAttentionBlock<O>, Error> {
        let (query, reduction) = match &spec.query {
            LatentQuerySpec::Direct(query) => (query, None),
            LatentQuerySpec::Reduced { down, norm, up } => {
                let reduction = Reduction {
                    down: loader.linear(down)?,
                    norm: loader.norm(norm)?,
                    fewer: down.rows,
                };
                (up, Some(reduction))
            }
        };
        Ok(LatentAttentionBlock {
            query: loader.linear(query)?,
            reduction,
            latent: loader.linear(&spec.latent)?,
            latent_norm: loader.norm(&spec.latent_norm)?,
            rotated_key: loader.linear(&spec.rotated_key)?,
            embed_query: loader.stack(&spec.embed_query)?,
            value: loader.stack(&spec.value)?,
            output: loader.linear(&spec.output)?,
            spec: spec.clone(),
        })
    }

    fn width(&self) -> usize {
        self.spec.latent.rows + self.spec.rotated
    }

    /// Queries as they come, normalized latent vectors, and the rotated parts before rotation.
    fn project(&self, pass: &mut Pass<'_, O>, tensors: &mut Tensors<'_, O>) {
        let (first, first_output) = match (&self.reduction, &mut tensors.fewer) {
            (Some(reduction), Some(fewer)) => (&reduction.down, &mut **fewer),
            _ => (&self.query, &mut *tensors.whole_queries),
        };
        let layers = [first, &self.latent, &self.rotated_key];
        let outputs = &mut [first_output, &mut *tensors.latent, &mut *tensors.rotated_key];
        pass.linear(pass.input, &layers, outputs);
        pass.ops.norm(self.latent_norm.of(0..pass.rows, tensors.latent));
        if let (Some(reduction), Some(fewer)) = (&self.reduction, &mut tensors.fewer) {
            pass.ops.norm(reduction.norm.of(0..pass.rows, fewer));
            pass.linear(fewer, &[&self.query], &mut [&mut *tensors.whole_queries]);
        }
    }

    /// Queries and keys in the space of latent vectors, rotated parts behind.
    fn place(&self, pass: &mut Pass<'_, O>, tensors: &mut Tensors<'_, O>) {
        let LatentAttentionSpec {
            heads,
            unrotated,
            rotated,
            ..
        } = self.spec;
        let (latent, width) = (self.spec.latent.rows, self.width());
        let part = |stride, start| HeadPart { stride, start };
        let whole = unrotated + rotated;
        let from = (&*tensors.whole_queries, part(whole, unrotated));
        copy(
            pass,
            (heads, rotated),
            from,
            (&mut *tensors.rotated_queries, part(rotated, 0)),
        );
        for parts in [&mut *tensors.rotated_queries, &mut *tensors.rotated_key] {
            pass.ops.rope(Rope {
                rows: pass.rows,
                heads: parts,
                head_dim: rotated,
                angles: &pass.angles[self.spec.rope].tensor,
                pairs: pass.angles[self.spec.rope].pairs,
            });
        }
        pass.ops.head_linear(HeadLinear {
            rows: pass.rows,
            weights: &self.embed_query,
            input: tensors.whole_queries,
            from: part(whole, 0),
            output: tensors.queries,
            to: part(width, 0),
        });
        let from = (&*tensors.rotated_queries, part(rotated, 0));
        copy(
            pass,
            (heads, rotated),
            from,
            (&mut *tensors.queries, part(width, latent)),
        );
        let from = (&*tensors.latent, part(latent, 0));
        copy(pass, (1, latent), from, (&mut *tensors.keys, part(width, 0)));
        let from = (&*tensors.rotated_key, part(rotated, 0));
        copy(pass, (1, rotated), from, (&mut *tensors.keys, part(width, latent)));
    }
}

/// Copies `heads` parts of `width` columns.
fn copy<O: Ops>(
    pass: &Pass<'_, O>,
    (heads, width): (usize, usize),
    (input, from): (&O::Tensor, HeadPart),
    (output, to): (&mut O::Tensor, HeadPart),
) {
    pass.ops.copy_heads(CopyHeads {
        rows: pass.rows,
        heads,
        width,
        input,
        from,
        output,
        to,
    });
}

impl<O: Ops> Block<O> for LatentAttentionBlock<O> {
    fn tensors(&self) -> Vec<TensorSize> {
        let LatentAttentionSpec {
            heads,
            unrotated,
            rotated,
            ..
        } = self.spec;
        let latent = self.spec.latent.rows;
        let cols = [
            heads * (unrotated + rotated),
            heads * rotated,
            heads * self.width(),
            latent,
            rotated,
            self.width(),
            heads * latent,
            heads * self.value.rows(),
        ];
        let fewer = self.reduction.as_ref().map(|reduction| reduction.fewer);
        cols.into_iter().chain(fewer).map(TensorSize::row).collect()
    }

    fn state(&self, ops: &O, _slots: usize) -> Result<BlockState<O>, Error> {
        let sizes = KeyValueSizes {
            heads: 1,
            head_dim: self.width(),
            value_dim: self.spec.latent.rows,
            window: None,
        };
        Ok(BlockState::KeyValues(ops.key_values(sizes).map_err(device_error)?))
    }

    fn run(&self, pass: &mut Pass<'_, O>, state: &mut BlockState<O>) -> Result<(), Error> {
        let BlockState::KeyValues(key_values) = state else {
            unreachable!("latent attention made keys and values")
        };
        let [
            whole_queries,
            rotated_queries,
            queries,
            latent,
            rotated_key,
            keys,
            attended,
            values,
            fewer @ ..,
        ] = std::mem::take(&mut pass.tensors)
        else {
            unreachable!("as many as tensors() says")
        };
        let mut tensors: Tensors<'_, O> = Tensors {
            whole_queries,
            rotated_queries,
            queries,
            latent,
            rotated_key,
            keys,
            attended,
            values,
            fewer: fewer.first_mut(),
        };
        self.project(pass, &mut tensors);
        self.place(pass, &mut tensors);
        let append = Append {
            places: pass.places,
            rotation: None,
            keys: tensors.keys,
            values: tensors.latent,
            key_values,
        };
        pass.ops.append(append).map_err(device_error)?;
        pass.ops.attention(Attention {
            places: pass.places,
            queries: tensors.queries,
            heads: self.spec.heads,
            scale: self.spec.scale,
            temperature_tuning: self.spec.temperature_tuning,
            window: None,
            softcap: None,
            alibi: None,
            sinks: None,
            key_values,
            output: tensors.attended,
        });
        let part = |stride| HeadPart { stride, start: 0 };
        pass.ops.head_linear(HeadLinear {
            rows: pass.rows,
            weights: &self.value,
            input: tensors.attended,
            from: part(self.spec.latent.rows),
            output: tensors.values,
            to: part(self.value.rows()),
        });
        self.output.run(pass, tensors.values);
        Ok(())
    }
}
