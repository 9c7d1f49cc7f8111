//! What the families around Llama share. A family says in what it differs, and may change the parts of each layer.

use planish_ops::{Activation, NormKind, RopePairs};

use super::parts::{Sizes, activation, epsilon, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Architecture, AttentionSpec, BlockSpec, BranchSpec, Error, FeedForwardSpec, LayerSpec, NormSpec, RopeSpec,
};

/// In what a family differs from Llama. What its configuration class takes for absent keys stands in
/// [`Config::with_defaults`].
#[derive(Clone, Copy)]
pub(super) struct Differences {
    /// Query, key and value have biases.
    pub(super) query_bias: bool,
    /// The output of attention has one.
    pub(super) output_bias: bool,
    /// The feed-forward layers have them.
    pub(super) feed_forward_bias: bool,
    /// How queries and keys are normalized.
    pub(super) head_norms: HeadNorms,
    /// Which values of a head are rotated together.
    pub(super) pairs: RopePairs,
    /// Gate and up are one tensor, the gate first.
    pub(super) fused_gate: bool,
    /// The non-linearity, where it is not what `hidden_act` says.
    pub(super) activation: Option<Activation>,
    /// The formula of all norms.
    pub(super) norm: NormStyle,
    /// Norms before and after attention, before and after the feed-forward block, by module name.
    pub(super) norms: [Option<&'static str>; 4],
    /// Attention and feed-forward block read the same rows.
    pub(super) parallel: bool,
    /// Multiplies what each block adds.
    pub(super) residual_scale: f32,
}

impl Default for Differences {
    fn default() -> Differences {
        Differences {
            query_bias: false,
            output_bias: false,
            feed_forward_bias: false,
            head_norms: HeadNorms::None,
            pairs: RopePairs::Halves,
            fused_gate: false,
            activation: None,
            norm: NormStyle::RMS,
            norms: [Some("input_layernorm"), None, Some("post_attention_layernorm"), None],
            parallel: false,
            residual_scale: 1.0,
        }
    }
}

/// How queries and keys are normalized before rotation.
#[derive(Clone, Copy)]
pub(super) enum HeadNorms {
    /// Not at all.
    None,
    /// Each head, all by the same weights.
    Shared,
    /// Each head by weights of its own.
    Own,
    /// All heads together.
    Together,
}

/// The formula of a family's norms.
#[derive(Clone, Copy)]
pub(super) struct NormStyle {
    /// RMS or layer norm; without a bias.
    pub(super) kind: NormKind,
    /// Added to stored weights.
    pub(super) offset: f32,
    /// The key of what is added to the mean square or variance.
    pub(super) epsilon_key: &'static str,
}

impl NormStyle {
    /// As Llama's.
    pub(super) const RMS: NormStyle = NormStyle {
        kind: NormKind::Rms,
        offset: 0.0,
        epsilon_key: "rms_norm_eps",
    };
}

/// A decoder of the Llama kind with one position encoding; `adapt` changes the attention of each layer by its index.
pub(super) fn llama_like(
    config: Config<'_>,
    name: &str,
    differences: Differences,
    adapt: impl Fn(usize, &mut AttentionSpec) -> Result<(), Error>,
) -> Result<Architecture, Error> {
    let llama = Llama::read(config, differences)?;
    let rope = RopeSpec {
        pairs: differences.pairs,
        ..read_rope(config, llama.sizes.head_dim)?
    };
    llama.decoder(config, name, vec![rope], adapt)
}

/// The same where `adapt` changes any part of a layer.
pub(super) fn adapted_layers(
    config: Config<'_>,
    name: &str,
    differences: Differences,
    adapt: impl Fn(&Sizes, usize, &mut LlamaLayer) -> Result<(), Error>,
) -> Result<Architecture, Error> {
    let llama = Llama::read(config, differences)?;
    let ropes = vec![read_rope(config, llama.sizes.head_dim)?];
    llama.decoder_of(config, name, ropes, |index| {
        let mut layer = llama.layer(index);
        adapt(&llama.sizes, index, &mut layer)?;
        Ok(llama.assemble(layer))
    })
}

/// What Llama's layers are made from.
pub(super) struct Llama {
    pub(super) sizes: Sizes,
    differences: Differences,
    epsilon: f32,
    activation: Activation,
}

/// The parts of a layer.
pub(super) struct LlamaLayer {
    pub(super) attention: AttentionSpec,
    pub(super) feed_forward: BlockSpec,
    /// Before and after attention, before and after the feed-forward block.
    pub(super) norms: [Option<NormSpec>; 4],
}

impl Llama {
    /// Sizes by the usual keys.
    pub(super) fn read(config: Config<'_>, differences: Differences) -> Result<Llama, Error> {
        Llama::of_sizes(config, Sizes::read(config, 0)?, differences)
    }

    /// The same where the sizes have other keys.
    pub(super) fn of_sizes(config: Config<'_>, sizes: Sizes, differences: Differences) -> Result<Llama, Error> {
        Ok(Llama {
            sizes,
            differences,
            epsilon: epsilon(config, differences.norm.epsilon_key, 1e-6)?,
            activation: match differences.activation {
                Some(activation) => activation,
                None => activation(config, "hidden_act", "silu")?,
            },
        })
    }

    /// The whole decoder; layers use `ropes[0]` unless `adapt` says otherwise.
    pub(super) fn decoder(
        &self,
        config: Config<'_>,
        name: &str,
        ropes: Vec<RopeSpec>,
        adapt: impl Fn(usize, &mut AttentionSpec) -> Result<(), Error>,
    ) -> Result<Architecture, Error> {
        self.decoder_of(config, name, ropes, |index| {
            let mut layer = self.layer(index);
            adapt(index, &mut layer.attention)?;
            Ok(self.assemble(layer))
        })
    }

    /// A decoder of other layers between Llama's table, norm and head.
    pub(super) fn decoder_of(
        &self,
        config: Config<'_>,
        name: &str,
        ropes: Vec<RopeSpec>,
        layer: impl Fn(usize) -> Result<LayerSpec, Error>,
    ) -> Result<Architecture, Error> {
        let final_norm = self.norm("model.norm".to_owned(), self.sizes.hidden);
        let head = self.sizes.head(config, "lm_head", false)?;
        Ok(Architecture {
            ropes,
            ..self
                .sizes
                .decoder(name, "model.embed_tokens", layer, final_norm, head)?
        })
    }

    /// The parts of a layer.
    pub(super) fn layer(&self, index: usize) -> LlamaLayer {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |name: &'static str| self.norm(path(name), self.sizes.hidden);
        LlamaLayer {
            attention: self.attention(&path("self_attn")),
            feed_forward: self.feed_forward(&path("mlp")).into(),
            norms: self.differences.norms.map(|name| name.map(norm)),
        }
    }

    /// A layer of its parts.
    pub(super) fn assemble(&self, layer: LlamaLayer) -> LayerSpec {
        let [
            before_attention,
            after_attention,
            before_feed_forward,
            after_feed_forward,
        ] = layer.norms;
        let branch = |norm, block, post_norm| BranchSpec {
            norm,
            block,
            post_norm,
            scale: self.differences.residual_scale,
        };
        let branches = [
            branch(before_attention, layer.attention.into(), after_attention),
            branch(before_feed_forward, layer.feed_forward, after_feed_forward),
        ];
        match self.differences.parallel {
            true => LayerSpec::parallel(branches),
            false => LayerSpec::sequential(branches),
        }
    }

    fn norm(&self, name: String, size: usize) -> NormSpec {
        let NormStyle { kind, offset, .. } = self.differences.norm;
        NormSpec {
            kind,
            offset,
            ..NormSpec::rms(name, size, self.epsilon)
        }
    }

    fn attention(&self, path: &str) -> AttentionSpec {
        let (query_bias, output_bias) = (self.differences.query_bias, self.differences.output_bias);
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let attention = self.sizes.attention(path, names, query_bias, output_bias);
        AttentionSpec {
            query_norm: self.head_norm(format!("{path}.q_norm"), attention.query.rows),
            key_norm: self.head_norm(format!("{path}.k_norm"), attention.key.rows),
            ..attention
        }
    }

    /// For queries or keys of `rows` values in all.
    fn head_norm(&self, name: String, rows: usize) -> Option<NormSpec> {
        let head_dim = self.sizes.head_dim;
        let (size, width) = match self.differences.head_norms {
            HeadNorms::None => return None,
            HeadNorms::Shared => (head_dim, head_dim),
            HeadNorms::Own => (rows, head_dim),
            HeadNorms::Together => (rows, rows),
        };
        Some(NormSpec {
            width,
            ..self.norm(name, size)
        })
    }

    fn feed_forward(&self, path: &str) -> FeedForwardSpec {
        let Sizes {
            hidden, intermediate, ..
        } = self.sizes;
        let bias = self.differences.feed_forward_bias;
        if !self.differences.fused_gate {
            let names = ["gate_proj", "up_proj", "down_proj"];
            return self.sizes.gated(path, names, bias, self.activation);
        }
        let fused = linear(format!("{path}.gate_up_proj"), 2 * intermediate, hidden, bias);
        FeedForwardSpec::Gated {
            gate: fused.cut_run(0, intermediate),
            up: fused.cut_run(intermediate, intermediate),
            down: linear(format!("{path}.down_proj"), hidden, intermediate, bias),
            activation: self.activation,
            cut: None,
            norm: None,
        }
    }
}
