//! Lfm3ForCausalLM: LFM2 with windows in some layers, a gate for each head, and norms behind its blocks.

use serde_json::json;

use super::Family;
use super::lfm2::convolution;
use super::parts::{Sizes, epsilon, window_of_layer};
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{Activation, Architecture, AttentionSpec, BlockSpec, BranchSpec, Error, GateSpec, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Lfm3ForCausalLM",
    model_type: "lfm3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 4, "head_dim": 128, "sliding_window": 256, "conv_L_cache": 7, "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}
        }
    });
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 0)?;
    let epsilon = epsilon(config, "norm_eps", 1e-5)?;
    let taps = config.count("conv_L_cache")?;
    if taps < 2 {
        return Err(config.error("conv_L_cache", "at least 2"));
    }
    let (conv_bias, bias) = (config.flag("conv_bias", false)?, config.flag("attention_bias", false)?);
    let (gated, behind) = (
        config.flag("use_attention_gate", true)?,
        config.flag("use_sandwich_norm", true)?,
    );
    let window = config.optional_count("sliding_window")?;
    let kinds = config.texts("layer_types")?;
    let convolves = |index: usize| match &kinds {
        Some(kinds) => kinds.get(index) == Some(&"conv"),
        None => index % 2 == 1 || index == 0,
    };
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str, size| NormSpec::rms(path(part), size, epsilon);
        let mixer: BlockSpec = match convolves(index) {
            true => convolution(&path("conv"), sizes.hidden, taps, conv_bias).into(),
            false => {
                let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
                let attention = sizes.attention(&path("self_attn"), names, bias, bias);
                let window = window_of_layer(config, window, |index| index % 4 == 0, index)?;
                AttentionSpec {
                    query_norm: Some(norm("self_attn.q_norm", sizes.head_dim)),
                    key_norm: Some(norm("self_attn.k_norm", sizes.head_dim)),
                    gate: gated.then(|| GateSpec::of_heads(path("self_attn.gate_proj"), &attention)),
                    rope: Some(usize::from(window.is_some())),
                    window,
                    ..attention
                }
                .into()
            }
        };
        let dense = sizes.gated(&path("feed_forward"), ["w1", "w3", "w2"], false, Activation::Silu);
        let branch = |before: &str, block, after: &str| BranchSpec {
            post_norm: behind.then(|| norm(after, sizes.hidden)),
            ..BranchSpec::new(norm(before, sizes.hidden), block)
        };
        Ok(LayerSpec::sequential([
            branch("operator_norm", mixer, "post_operator_norm"),
            branch("ffn_norm", dense.into(), "post_ffn_norm"),
        ]))
    };
    let head = sizes.head(config, "lm_head", config.flag("tie_embedding", true)?)?;
    let final_norm = NormSpec::rms("model.embedding_norm", sizes.hidden, epsilon);
    Ok(Architecture {
        ropes: vec![
            read_rope_of_kind(config, "full_attention", "rope_theta", sizes.head_dim)?,
            read_rope_of_kind(config, "sliding_attention", "rope_theta", sizes.head_dim)?,
        ],
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}
