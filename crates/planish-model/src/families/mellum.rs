//! MellumForCausalLM: Qwen 3 with routed experts, a window and a rotation of its own in some layers.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, Llama};
use super::common_experts::{Paths, Routed, read_kinds, softmax_routing};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "MellumForCausalLM",
    model_type: "mellum",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 4, "head_dim": 128, "sliding_window": 1024, "num_experts": 64, "num_experts_per_tok": 8,
        "moe_intermediate_size": 896, "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}
        }
    });
    let config = config.with_defaults(&defaults);
    let routing = softmax_routing(config, "num_experts_per_tok", config.flag("norm_topk_prob", true)?)?;
    let experts_key = match config.value("num_local_experts") {
        Some(_) => "num_local_experts",
        None => "num_experts",
    };
    let routed = Routed::read(config, "moe_intermediate_size", experts_key, routing)?;
    let kinds = read_kinds(config)?;
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let llama = Llama::read(config, differences)?;
    let head_dim = llama.sizes.head_dim;
    let ropes = vec![
        read_rope_of_kind(config, "full_attention", "rope_theta", head_dim)?,
        read_rope_of_kind(config, "sliding_attention", "rope_theta", head_dim)?,
    ];
    let window = config.optional_count("sliding_window")?;
    llama.decoder_of(config, FAMILY.architecture, ropes, |index| {
        let mut layer = llama.layer(index);
        layer.attention.window = window_of_layer(config, window, |_| false, index)?;
        layer.attention.rope = Some(usize::from(layer.attention.window.is_some()));
        if kinds.as_ref().is_none_or(|kinds| kinds[index]) {
            layer.feed_forward = routed.at(&Paths::usual(index)).into();
        }
        Ok(llama.assemble(layer))
    })
}
