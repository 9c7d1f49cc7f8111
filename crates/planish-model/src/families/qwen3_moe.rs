//! Qwen3MoeForCausalLM: Qwen 3 with routed experts in most layers.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use super::qwen2_moe::is_sparse;
use crate::config::Config;
use crate::{Architecture, BlockSpec, Error, LayerSpec, StackPlace};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen3MoeForCausalLM",
    model_type: "qwen3_moe",
    translate,
};

/// The text part of the models with images: weights are always normalized, and published tensors of experts have columns first.
pub(super) const VL_FAMILY: Family = Family {
    architecture: "Qwen3VLMoeForConditionalGeneration",
    model_type: "qwen3_vl_moe_text",
    translate: |config| {
        let mut architecture = decoder(config, true)?;
        let branches = architecture.layers.iter_mut().flat_map(LayerSpec::branches_mut);
        for branch in branches {
            if let BlockSpec::Experts(experts) = &mut branch.block {
                let stacks = experts.gate.iter_mut().chain([&mut experts.up, &mut experts.down]);
                stacks.flat_map(|stack| &mut stack.places).for_each(either_way);
            }
        }
        Ok(architecture)
    },
};

fn either_way(place: &mut StackPlace) {
    if let StackPlace::Fused(fused) = place {
        *place = StackPlace::Either(fused.clone());
    }
}

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    decoder(config, config.flag("norm_topk_prob", false)?)
}

fn decoder(config: Config<'_>, normalized: bool) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 4, "sliding_window": 4096, "decoder_sparse_step": 1, "moe_intermediate_size": 768,
        "num_experts_per_tok": 8, "num_experts": 128
    });
    let config = config.with_defaults(&defaults);
    let routing = softmax_routing(config, "num_experts_per_tok", normalized)?;
    let experts_key = match config.value("num_local_experts") {
        Some(_) => "num_local_experts",
        None => "num_experts",
    };
    let routed = Routed::read(config, "moe_intermediate_size", experts_key, routing)?;
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let window = match config.flag("use_sliding_window", false)? {
        true => config.optional_count("sliding_window")?,
        false => None,
    };
    adapted_layers(config, FAMILY.architecture, differences, |_, index, layer| {
        layer.attention.window = window;
        if is_sparse(config, index)? {
            layer.feed_forward = routed.at(&Paths::usual(index)).into();
        }
        Ok(())
    })
}
