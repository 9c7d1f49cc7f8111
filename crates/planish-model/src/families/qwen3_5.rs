//! Qwen3_5ForCausalLM and Qwen3_5MoeForCausalLM: Qwen3-Next whose delta net has a layer for each of its inputs.

use serde_json::json;

use super::Family;
use super::delta_net::DeltaNet;
use super::qwen3_next::decoder;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen3_5ForCausalLM",
    model_type: "qwen3_5_text",
    translate,
};

pub(super) const EXPERTS_FAMILY: Family = Family {
    architecture: "Qwen3_5MoeForCausalLM",
    model_type: "qwen3_5_moe_text",
    translate: translate_experts,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "full_attention_interval": 4, "num_key_value_heads": 4
    });
    decoder(
        config.with_defaults(&defaults),
        FAMILY.architecture,
        DeltaNet::layer_of_four,
    )
}

fn translate_experts(config: Config<'_>) -> Result<Architecture, Error> {
    // No layer has the feed-forward block that `intermediate_size` is the size of.
    let defaults = json!({
        "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "full_attention_interval": 4, "num_key_value_heads": 2, "decoder_sparse_step": 1, "num_experts": 256,
        "num_experts_per_tok": 8, "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512,
        "intermediate_size": 512
    });
    let config = config.with_defaults(&defaults);
    decoder(config, EXPERTS_FAMILY.architecture, DeltaNet::layer_of_four)
}
