//! MiMoV2FlashForCausalLM: windows with sinks in most layers, with twice the key heads; values of a length of their own; a part of a
//! head rotated; routed experts.

use serde_json::json;

use super::Family;
use super::common::{Differences, Llama};
use super::common_experts::{LateExperts, sigmoid_routing};
use super::parts::{Sizes, linear, window_of_layer};
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{Architecture, AttentionSpec, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "MiMoV2FlashForCausalLM",
    model_type: "mimo_v2_flash",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    // The first layer is dense unless `mlp_layer_types` says otherwise.
    let defaults = json!({
        "num_key_value_heads": 4, "head_dim": 192, "v_head_dim": 128, "sliding_window": 129, "attention_value_scale": 0.707,
        "n_routed_experts": 256, "num_experts_per_tok": 8, "moe_intermediate_size": 2048, "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1, "rms_norm_eps": 1e-5, "partial_rotary_factor": 0.334, "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 5_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}
        }
    });
    let config = config.with_defaults(&defaults);
    let bias = config.flag("attention_bias", false)?;
    let llama = Llama::read(config, Differences::default())?;
    let experts = LateExperts::read(config, sigmoid_routing(config)?)?;
    let Sizes { hidden, heads, .. } = llama.sizes;
    let head_dim = llama.sizes.head_dim;
    let ropes = vec![
        read_rope_of_kind(config, "full_attention", "rope_theta", head_dim)?,
        read_rope_of_kind(config, "sliding_attention", "rope_theta", head_dim)?,
    ];
    let window = config.optional_count("sliding_window")?;
    let slides = |index: usize| index > 0 && !(index + 1).is_multiple_of(6);
    let value_dim = config.count("v_head_dim")?;
    let value_scale = config.optional_number("attention_value_scale")?.unwrap_or(1.0) as f32;
    llama.decoder_of(config, FAMILY.architecture, ropes, |index| {
        let mut layer = llama.layer(index);
        let path = format!("model.layers.{index}.self_attn");
        let window = window_of_layer(config, window, slides, index)?;
        let kv_heads = llama.sizes.kv_heads * if window.is_some() { 2 } else { 1 };
        if !heads.is_multiple_of(kv_heads) {
            return Err(config.error("num_key_value_heads", "half a divisor of num_attention_heads"));
        }
        let sizes = Sizes {
            kv_heads,
            ..llama.sizes
        };
        layer.attention = AttentionSpec {
            value_dim,
            value: linear(format!("{path}.v_proj"), kv_heads * value_dim, hidden, bias),
            output: linear(format!("{path}.o_proj"), hidden, heads * value_dim, false),
            window,
            rope: Some(usize::from(window.is_some())),
            sinks: window.map(|_| format!("{path}.attention_sink_bias")),
            ..sizes.attention(&path, ["q_proj", "k_proj", "v_proj", "o_proj"], bias, false)
        };
        if let Some(experts) = experts.at(&llama.sizes, index) {
            layer.feed_forward = experts.into();
        }
        let mut layer = llama.assemble(layer);
        // What scales values scales what the output layer gives.
        layer.steps[0].branches[0].scale = value_scale;
        Ok(layer)
    })
}
