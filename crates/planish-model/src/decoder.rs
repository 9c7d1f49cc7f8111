//! The decoder: an architecture with its weights on one device. Tokens go through in passes of some hundred rows.

use planish_ops::{Embed, Linear, Matrix, Ops, RmsNorm, RopeAngles};

use crate::blocks::{AttentionBlock, FeedForwardBlock, LinearLayer, NormLayer, Pass, device_error};
use crate::clock::{Clock, Phase};
use crate::source::WeightSource;
use crate::workspace::Workspace;
use crate::{Architecture, Cache, Error, HeadSpec, Phases};

/// Rows whose logits are computed together by [`Engine::forward_all`].
const LOGIT_ROWS: usize = 32;

/// What [`crate::Model`] needs of a decoder, whatever its device.
pub(crate) trait Engine: Send {
    fn cache(&self, capacity: usize) -> Result<Cache, Error>;
    fn forward(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<&[f32], Error>;
    fn forward_all(
        &mut self,
        tokens: &[u32],
        cache: &mut Cache,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error>;
    fn measure(&mut self, on: bool);
    fn phases(&self) -> Phases;
}

struct Layer<O: Ops> {
    attention_norm: NormLayer<O>,
    attention: AttentionBlock<O>,
    feed_forward_norm: NormLayer<O>,
    feed_forward: FeedForwardBlock<O>,
}

/// An architecture with its weights.
pub(crate) struct Decoder<O: Ops> {
    ops: O,
    architecture: Architecture,
    embedding: O::Weight, // (vocabulary, hidden)
    layers: Vec<Layer<O>>,
    final_norm: NormLayer<O>,
    head: Option<LinearLayer<O>>, // (vocabulary, hidden); the embedding where there is none
    frequencies: Vec<Vec<f32>>,   // of each rope, (rotated / 2), for the length in `frequencies_length`
    frequencies_length: usize,
    workspace: Workspace<O>,
    logits: Option<O::Tensor>, // (LOGIT_ROWS, vocabulary), for forward_all
    staging: Vec<f32>,
    clock: Clock,
}

impl<O: Ops> Decoder<O> {
    pub(crate) fn load(ops: O, architecture: &Architecture, source: &dyn WeightSource) -> Result<Decoder<O>, Error> {
        let name = format!("{}.weight", architecture.embedding);
        let table: Matrix = source.matrix(&name, architecture.vocabulary, architecture.hidden)?;
        let layers = architecture.layers.iter().map(|spec| {
            Ok(Layer {
                attention_norm: NormLayer::load(&ops, source, &spec.attention_norm)?,
                attention: AttentionBlock::load(&ops, source, &spec.attention)?,
                feed_forward_norm: NormLayer::load(&ops, source, &spec.feed_forward_norm)?,
                feed_forward: FeedForwardBlock::load(&ops, source, &spec.feed_forward)?,
            })
        });
        Ok(Decoder {
            layers: layers.collect::<Result<_, Error>>()?,
            final_norm: NormLayer::load(&ops, source, &architecture.final_norm)?,
            head: match &architecture.head {
                HeadSpec::Tied => None,
                HeadSpec::Separate(spec) => Some(LinearLayer::load(&ops, source, spec)?),
            },
            embedding: ops.weight(table).map_err(device_error)?,
            frequencies: architecture.ropes.iter().map(|rope| rope.frequencies(0)).collect(),
            frequencies_length: 0,
            workspace: Workspace::new(&ops, architecture)?,
            logits: None,
            staging: Vec::new(),
            clock: Clock::default(),
            architecture: architecture.clone(),
            ops,
        })
    }

    /// Checks what the caller gives; nothing has changed when this fails.
    fn check(&self, tokens: &[u32], cache: &Cache) -> Result<(), Error> {
        let vocabulary = self.architecture.vocabulary;
        if tokens.is_empty() {
            return Err(Error::NoTokens);
        }
        if let Some(&token) = tokens.iter().find(|&&token| token as usize >= vocabulary) {
            return Err(Error::Token { token, vocabulary });
        }
        cache.check_room(tokens.len())
    }

    /// Frequencies for a sequence of `length`; only the dynamic scaling depends on it.
    fn update_frequencies(&mut self, length: usize) {
        let ropes = &self.architecture.ropes;
        if self.frequencies_length != length && ropes.iter().any(|rope| rope.depends_on_length()) {
            self.frequencies = ropes.iter().map(|rope| rope.frequencies(length)).collect();
            self.frequencies_length = length;
        }
    }

    /// All layers for one pass: leaves the hidden state without the last `delta`, which the final norm adds.
    fn run_layers(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<(), Error> {
        let (rows, first_position) = (tokens.len(), cache.len());
        let Decoder {
            ops, workspace, clock, ..
        } = self;
        let scale = self.architecture.embedding_scale;
        ops.embed(Embed {
            table: &self.embedding,
            tokens,
            scale,
            output: &mut workspace.hidden,
        });
        let ropes = self
            .architecture
            .ropes
            .iter()
            .zip(&self.frequencies)
            .zip(&mut workspace.angles);
        for ((rope, frequencies), output) in ropes {
            let factor = rope.attention_factor();
            ops.rope_angles(RopeAngles {
                frequencies,
                factor,
                first_position,
                rows,
                output,
            });
        }
        let mut pass = Pass {
            ops,
            rows,
            first_position,
            workspace,
            clock,
        };
        for (index, (layer, key_values)) in self.layers.iter().zip(cache.layers::<O>()).enumerate() {
            pass.normalize(&layer.attention_norm, index > 0);
            layer.attention.run(&mut pass, key_values)?;
            pass.normalize(&layer.feed_forward_norm, true);
            layer.feed_forward.run(&mut pass);
        }
        cache.advance(rows);
        Ok(())
    }

    /// Logits of rows `first..first + count` of the pass into the first rows of `logits`.
    fn run_head(&mut self, first: usize, count: usize, logits: Option<&mut O::Tensor>) {
        let Decoder {
            ops, workspace, clock, ..
        } = self;
        ops.rms_norm(RmsNorm {
            rows: first..first + count,
            hidden: &mut workspace.hidden,
            residual: Some(&workspace.delta),
            weight: &self.final_norm.weight,
            epsilon: self.final_norm.epsilon,
            output: Some(&mut workspace.normed),
        });
        let (weight, bias) = match &self.head {
            Some(head) => (&head.weight, head.bias.as_ref()),
            None => (&self.embedding, None),
        };
        ops.linear(Linear {
            rows: count,
            input: &workspace.normed,
            weights: &[weight],
            biases: &[bias],
            outputs: &mut [logits.unwrap_or(&mut workspace.logits)],
        });
        clock.lap(Phase::Head);
    }
}

impl<O: Ops> Pass<'_, O> {
    /// `normed = norm(hidden)`, after adding `delta` to `hidden`.
    fn normalize(&mut self, norm: &NormLayer<O>, add_delta: bool) {
        self.ops.rms_norm(RmsNorm {
            rows: 0..self.rows,
            hidden: &mut self.workspace.hidden,
            residual: add_delta.then_some(&self.workspace.delta),
            weight: &norm.weight,
            epsilon: norm.epsilon,
            output: Some(&mut self.workspace.normed),
        });
        self.clock.lap(Phase::Other);
    }
}

impl<O: Ops> Engine for Decoder<O> {
    fn cache(&self, capacity: usize) -> Result<Cache, Error> {
        let layer = |layer: &crate::LayerSpec| self.ops.key_values(layer.attention.kv_heads, layer.attention.head_dim);
        let layers = self
            .architecture
            .layers
            .iter()
            .map(layer)
            .collect::<Result<Vec<_>, _>>();
        Ok(Cache::new::<O>(layers.map_err(device_error)?, capacity))
    }

    fn forward(&mut self, tokens: &[u32], cache: &mut Cache) -> Result<&[f32], Error> {
        self.check(tokens, cache)?;
        self.clock.skip();
        self.update_frequencies(cache.len() + tokens.len());
        let mut last = 0;
        for pass in tokens.chunks(self.workspace.rows) {
            self.run_layers(pass, cache)?;
            last = pass.len() - 1;
        }
        self.run_head(last, 1, None);
        self.ops
            .read(&self.workspace.logits, 0..1, &mut self.staging)
            .map_err(device_error)
    }

    fn forward_all(
        &mut self,
        tokens: &[u32],
        cache: &mut Cache,
        each: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), Error> {
        self.check(tokens, cache)?;
        self.update_frequencies(cache.len() + tokens.len());
        let vocabulary = self.architecture.vocabulary;
        let mut logits = match self.logits.take() {
            Some(logits) => logits,
            None => self.ops.tensor(LOGIT_ROWS, vocabulary).map_err(device_error)?,
        };
        let mut index = 0;
        for pass in tokens.chunks(self.workspace.rows) {
            self.clock.skip();
            self.run_layers(pass, cache)?;
            for first in (0..pass.len()).step_by(LOGIT_ROWS) {
                let count = LOGIT_ROWS.min(pass.len() - first);
                self.run_head(first, count, Some(&mut logits));
                let values = self
                    .ops
                    .read(&logits, 0..count, &mut self.staging)
                    .map_err(device_error)?;
                for logits in values.chunks_exact(vocabulary) {
                    each(index, logits);
                    index += 1;
                }
            }
        }
        self.logits = Some(logits);
        Ok(())
    }

    fn measure(&mut self, on: bool) {
        self.clock.measure(on);
    }

    fn phases(&self) -> Phases {
        self.clock.phases
    }
}
