//! GraniteMoeHybridForCausalLM (Granite 4): layers of Mamba 2 or of attention, experts or none, Granite's multipliers.

use serde_json::json;

use super::Family;
use super::granitemoe::{experts, read_experts};
use super::mamba2::{Factors, Mamba2};
use super::parts::{Sizes, activation, epsilon, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Architecture, AttentionSpec, BlockSpec, BranchSpec, EmbeddingSpec, Error, ExpertsSpec, FeedForwardSpec, LayerSpec,
    LogitsSpec, NormSpec, SharedExpertsSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "GraniteMoeHybridForCausalLM",
    model_type: "granitemoehybrid",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "residual_multiplier": 1.0, "attention_multiplier": 1.0, "embedding_multiplier": 1.0, "logits_scaling": 1.0,
        "shared_intermediate_size": 1024, "num_local_experts": 8, "num_experts_per_tok": 2
    });
    let config = config.with_defaults(&defaults);
    let routed = match config.number("num_local_experts")? {
        0.0 => None,
        _ => Some(read_experts(config)?),
    };
    let sizes = Sizes::read(config, 0)?;
    let mamba = Mamba2::read(config, sizes.hidden, None)?;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-6)?;
    let factor = |key: &str| config.number(key).map(|factor| factor as f32);
    let (scale, attention_scale) = (factor("residual_multiplier")?, factor("attention_multiplier")?);
    let logits_scale = match factor("logits_scaling")? {
        0.0 => return Err(config.error("logits_scaling", "a number other than 0")),
        divisor => 1.0 / divisor,
    };
    let rotates = rotates(config)?;
    let bias = config.flag("attention_bias", false)?;
    let shared = Sizes {
        intermediate: config.count("shared_intermediate_size")?,
        ..sizes
    };
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| NormSpec::rms(path(part), sizes.hidden, epsilon);
        let mixer: BlockSpec = match is_attention(config, index)? {
            true => AttentionSpec {
                scale: attention_scale,
                rope: rotates.then_some(0),
                ..sizes.attention(&path("self_attn"), ["q_proj", "k_proj", "v_proj", "o_proj"], bias, bias)
            }
            .into(),
            false => {
                let gated_norm = mamba.norm(&path("mamba"), epsilon);
                mamba
                    .layer(&path("mamba"), Factors::ONE, Some(gated_norm), mamba.input_bias)
                    .into()
            }
        };
        let branch = |norm: NormSpec, block: BlockSpec| BranchSpec {
            scale,
            ..BranchSpec::new(norm, block)
        };
        let shared = shared_feed_forward(config, shared, &path("shared_mlp"))?;
        let feed_forward: BlockSpec = match &routed {
            Some(routed) => with_shared(experts(routed, index), shared).into(),
            None => shared.into(),
        };
        Ok(LayerSpec::sequential([
            branch(norm("input_layernorm"), mixer),
            branch(norm("post_attention_layernorm"), feed_forward),
        ]))
    };
    let final_norm = NormSpec::rms("model.norm", sizes.hidden, epsilon);
    let head = sizes.head(config, "lm_head", false)?;
    Ok(Architecture {
        embedding: EmbeddingSpec {
            scale: factor("embedding_multiplier")?,
            ..EmbeddingSpec::new("model.embed_tokens")
        },
        logits: LogitsSpec {
            scale: logits_scale,
            softcap: None,
        },
        ropes: match rotates {
            true => vec![read_rope(config, sizes.head_dim)?],
            false => Vec::new(),
        },
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}

fn rotates(config: Config<'_>) -> Result<bool, Error> {
    match config.optional_text("position_embedding_type")? {
        Some("rope") => Ok(true),
        None | Some("nope") => Ok(false),
        Some(_) => Err(config.error("position_embedding_type", "rope or nope")),
    }
}

fn is_attention(config: Config<'_>, index: usize) -> Result<bool, Error> {
    let kinds = match config.texts("layer_types")? {
        Some(kinds) => Some(kinds),
        None => config.texts("layers_block_type")?,
    };
    match kinds.map(|kinds| kinds.get(index).copied()) {
        None | Some(Some("linear_attention" | "mamba")) => Ok(false),
        Some(Some("full_attention" | "attention")) => Ok(true),
        Some(_) => Err(config.error("layer_types", "linear_attention or full_attention for every layer")),
    }
}

/// Every row goes through the shared feed-forward block, too.
pub(super) fn with_shared(experts: ExpertsSpec, feed_forward: FeedForwardSpec) -> ExpertsSpec {
    ExpertsSpec {
        shared: Some(SharedExpertsSpec {
            feed_forward,
            gate: None,
        }),
        ..experts
    }
}

/// Gate and up stand in one tensor.
pub(super) fn shared_feed_forward(config: Config<'_>, sizes: Sizes, path: &str) -> Result<FeedForwardSpec, Error> {
    let (hidden, intermediate) = (sizes.hidden, sizes.intermediate);
    let both = linear(format!("{path}.input_linear"), 2 * intermediate, hidden, false);
    Ok(FeedForwardSpec::Gated {
        gate: both.cut_run(0, intermediate),
        up: both.cut_run(intermediate, intermediate),
        down: linear(format!("{path}.output_linear"), hidden, intermediate, false),
        activation: activation(config, "hidden_act", "silu")?,
        cut: None,
        norm: None,
    })
}
