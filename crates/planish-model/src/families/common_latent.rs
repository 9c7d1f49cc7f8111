//! What DeepSeek-V2, V3 and their kin share: latent attention in every layer, experts in some.

use planish_ops::{RopePairs, TemperatureTuning};

use super::common::{Differences, Llama};
use super::common_experts::LateExperts;
use super::parts::{Sizes, linear};
use crate::config::Config;
use crate::rope::read_whole_rope;
use crate::{
    Architecture, Error, FusedRows, FusedStack, LatentAttentionSpec, LatentQuerySpec, NormSpec, StackPlace, StackSpec,
};

/// Norms of latent vectors do not follow the config.
const EPSILON: f32 = 1e-6;

/// What a family says of its latent decoder beside the usual keys.
pub(super) struct LatentDecoder {
    /// Of the layers that have some.
    pub(super) experts: Option<LateExperts>,
    /// Which rotated values of a head belong together.
    pub(super) pairs: RopePairs,
    /// Multiplies what each block adds.
    pub(super) residual_scale: f32,
    /// The scale of scores grows with the position of the query.
    pub(super) temperature_tuning: Option<TemperatureTuning>,
}

impl LatentDecoder {
    /// Without experts.
    pub(super) fn new(pairs: RopePairs) -> LatentDecoder {
        LatentDecoder {
            experts: None,
            pairs,
            residual_scale: 1.0,
            temperature_tuning: None,
        }
    }

    /// The whole decoder.
    pub(super) fn read(&self, config: Config<'_>, name: &str) -> Result<Architecture, Error> {
        let differences = Differences {
            feed_forward_bias: config.flag("mlp_bias", false)?,
            residual_scale: self.residual_scale,
            ..Differences::default()
        };
        let latent = Latent::read(config)?;
        // Heads need not divide the hidden size; what `head_dim` says is of no account here.
        let sizes = Sizes::read(config, latent.rotated)?;
        let llama = Llama::of_sizes(config, sizes, differences)?;
        let mut rope = read_whole_rope(config, latent.rotated)?;
        rope.pairs = self.pairs;
        llama.decoder_of(config, name, vec![rope], |index| {
            let mut layer = llama.layer(index);
            if let Some(experts) = self
                .experts
                .as_ref()
                .and_then(|experts| experts.at(&llama.sizes, index))
            {
                layer.feed_forward = experts.into();
            }
            let mut layer = llama.assemble(layer);
            let attention = LatentAttentionSpec {
                temperature_tuning: self.temperature_tuning,
                ..latent.attention(&llama.sizes, index)
            };
            layer.steps[0].branches[0].block = attention.into();
            Ok(layer)
        })
    }
}

/// By `rope_interleave`, which is on unless said.
pub(super) fn read_pairs(config: Config<'_>) -> Result<RopePairs, Error> {
    Ok(match config.flag("rope_interleave", true)? {
        true => RopePairs::Neighbours,
        false => RopePairs::Halves,
    })
}

/// Sizes of latent attention.
pub(super) struct Latent {
    latent: usize,
    fewer: Option<usize>,
    unrotated: usize,
    pub(super) rotated: usize,
    value: usize,
    bias: bool,
    scale: f32,
}

impl Latent {
    pub(super) fn read(config: Config<'_>) -> Result<Latent, Error> {
        let (unrotated, rotated) = (config.count("qk_nope_head_dim")?, config.count("qk_rope_head_dim")?);
        Ok(Latent {
            latent: config.count("kv_lora_rank")?,
            fewer: config.optional_count("q_lora_rank")?,
            unrotated,
            rotated,
            value: config.count("v_head_dim")?,
            bias: config.flag("attention_bias", false)?,
            scale: ((unrotated + rotated) as f32).powf(-0.5) * read_scale(config)?,
        })
    }

    pub(super) fn attention(&self, sizes: &Sizes, index: usize) -> LatentAttentionSpec {
        let path = |part: &str| format!("model.layers.{index}.self_attn.{part}");
        let Sizes { heads, hidden, .. } = *sizes;
        let query_rows = heads * (self.unrotated + self.rotated);
        let query = match self.fewer {
            None => LatentQuerySpec::Direct(linear(path("q_proj"), query_rows, hidden, false)),
            Some(fewer) => LatentQuerySpec::Reduced {
                down: linear(path("q_a_proj"), fewer, hidden, self.bias),
                norm: NormSpec::rms(path("q_a_layernorm"), fewer, EPSILON),
                up: linear(path("q_b_proj"), query_rows, fewer, false),
            },
        };
        let latent = linear(
            path("kv_a_proj_with_mqa"),
            self.latent + self.rotated,
            hidden,
            self.bias,
        );
        let stack = |rows, cols, places| StackSpec {
            experts: heads,
            rows,
            cols,
            places,
            biases: Vec::new(),
        };
        // Hub files have keys and values of every head in one matrix, MLX has two stacks.
        let expanded = |rows| FusedStack {
            name: path("kv_b_proj"),
            total: self.unrotated + self.value,
            rows,
        };
        let keys = StackPlace::Transposed(expanded(FusedRows::From(0)));
        let values = StackPlace::Joined(expanded(FusedRows::From(self.unrotated)));
        let stacked = |part, rows| StackPlace::Fused(FusedStack::whole(path(part), rows));
        LatentAttentionSpec {
            heads,
            unrotated: self.unrotated,
            rotated: self.rotated,
            query,
            latent_norm: NormSpec::rms(path("kv_a_layernorm"), self.latent, EPSILON),
            rotated_key: latent.cut_run(self.latent, self.rotated),
            latent: latent.cut_run(0, self.latent),
            embed_query: stack(self.latent, self.unrotated, vec![keys, stacked("embed_q", self.latent)]),
            value: stack(
                self.value,
                self.latent,
                vec![values, stacked("unembed_out", self.value)],
            ),
            output: linear(path("o_proj"), hidden, heads * self.value, self.bias),
            rope: Some(0),
            scale: self.scale,
            temperature_tuning: None,
        }
    }
}

/// Scores grow with the stretch of the context: the square of YaRN's factor for all dimensions.
fn read_scale(config: Config<'_>) -> Result<f32, Error> {
    let parameters = config.object("rope_scaling")?.or(config.object("rope_parameters")?);
    let Some(parameters) = parameters else { return Ok(1.0) };
    let multiplier = parameters.optional_number("mscale_all_dim")?.unwrap_or(0.0);
    let factor = parameters.optional_number("factor")?.unwrap_or(1.0);
    if multiplier == 0.0 || factor <= 1.0 {
        return Ok(1.0);
    }
    Ok((0.1 * multiplier * factor.ln() + 1.0).powi(2) as f32)
}
