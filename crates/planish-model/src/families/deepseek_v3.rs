//! DeepseekV3ForCausalLM (V3 and R1): latent attention; routed experts with logistic scores and a correction.

use planish_ops::RopePairs;
use serde_json::json;

use super::Family;
use super::common_experts::sigmoid_routing;
use super::common_latent::latent_decoder;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "DeepseekV3ForCausalLM",
    model_type: "deepseek_v3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 256, "n_shared_experts": 1, "moe_intermediate_size": 2048, "routed_scaling_factor": 2.5,
        "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "num_key_value_heads": 128
    });
    let config = config.with_defaults(&defaults);
    let pairs = match config.flag("rope_interleave", true)? {
        true => RopePairs::Neighbours,
        false => RopePairs::Halves,
    };
    latent_decoder(config, FAMILY.architecture, sigmoid_routing(config)?, pairs)
}
