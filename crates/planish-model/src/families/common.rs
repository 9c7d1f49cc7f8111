//! What the families around Llama share. A family that differs in some part changes it in its [`LlamaLayer`]s.

use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, AttentionSpec, BranchSpec, Error, FeedForwardSpec, LayerSpec, NormSpec};

/// In what a family differs from Llama.
#[derive(Clone, Copy, Default)]
pub(super) struct Differences {
    /// Query, key and value have biases.
    pub(super) query_bias: bool,
    /// The output of attention has one.
    pub(super) output_bias: bool,
    /// The feed-forward layers have them.
    pub(super) feed_forward_bias: bool,
    /// Query and key heads are normalized.
    pub(super) head_norms: bool,
    /// Values of a head when the config does not say; 0 is hidden / heads.
    pub(super) head_dim: usize,
    /// The head is the token table when the config does not say.
    pub(super) tied: bool,
}

/// The parts of a layer.
pub(super) struct LlamaLayer {
    pub(super) attention_norm: NormSpec,
    pub(super) attention: AttentionSpec,
    pub(super) feed_forward_norm: NormSpec,
    pub(super) feed_forward: FeedForwardSpec,
}

impl LlamaLayer {
    /// `x += attention(norm(x)); x += feed_forward(norm(x))`.
    pub(super) fn sequential(self) -> LayerSpec {
        LayerSpec::sequential([
            BranchSpec::new(self.attention_norm, self.attention.into()),
            BranchSpec::new(self.feed_forward_norm, self.feed_forward.into()),
        ])
    }
}

/// A decoder of the Llama kind; `windows` has one entry a layer.
pub(super) fn llama_like(
    config: Config<'_>,
    name: &str,
    differences: Differences,
    windows: impl Fn(usize) -> Result<Option<usize>, Error>,
) -> Result<Architecture, Error> {
    llama_with(config, name, differences, |index, mut layer| {
        layer.attention.window = windows(index)?;
        Ok(layer.sequential())
    })
}

/// A decoder whose layers are made from Llama's parts.
pub(super) fn llama_with(
    config: Config<'_>,
    name: &str,
    differences: Differences,
    layer: impl Fn(usize, LlamaLayer) -> Result<LayerSpec, Error>,
) -> Result<Architecture, Error> {
    let sizes = Sizes::read(config, differences.head_dim)?;
    let rope = read_rope(config, sizes.head_dim)?;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-6)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let parts = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let head_norm = |part: &str| {
            differences
                .head_norms
                .then(|| NormSpec::rms(path(part), sizes.head_dim, epsilon))
        };
        let Differences {
            query_bias,
            output_bias,
            feed_forward_bias,
            ..
        } = differences;
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        LlamaLayer {
            attention_norm: NormSpec::rms(path("input_layernorm"), sizes.hidden, epsilon),
            attention: AttentionSpec {
                query_norm: head_norm("self_attn.q_norm"),
                key_norm: head_norm("self_attn.k_norm"),
                ..sizes.attention(&path("self_attn"), names, query_bias, output_bias)
            },
            feed_forward_norm: NormSpec::rms(path("post_attention_layernorm"), sizes.hidden, epsilon),
            feed_forward: sizes.gated(
                &path("mlp"),
                ["gate_proj", "up_proj", "down_proj"],
                feed_forward_bias,
                activation,
            ),
        }
    };
    let final_norm = NormSpec::rms("model.norm", sizes.hidden, epsilon);
    let head = sizes.head(config, "lm_head", differences.tied)?;
    let layer = |index| layer(index, parts(index));
    Ok(Architecture {
        ropes: vec![rope],
        ..sizes.decoder(name, "model.embed_tokens", layer, final_norm, head)?
    })
}
