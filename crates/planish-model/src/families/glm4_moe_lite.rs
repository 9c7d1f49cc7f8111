//! Glm4MoeLiteForCausalLM (GLM 4.7 Flash): DeepSeek-V3 with the sizes of its own.

use serde_json::json;

use super::Family;
use super::common_experts::{LateExperts, sigmoid_routing};
use super::common_latent::{LatentDecoder, read_pairs};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Glm4MoeLiteForCausalLM",
    model_type: "glm4_moe_lite",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "kv_lora_rank": 512, "q_lora_rank": 768, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
        "n_routed_experts": 64, "n_shared_experts": 1, "moe_intermediate_size": 1536, "routed_scaling_factor": 1.8,
        "num_experts_per_tok": 4, "first_k_dense_replace": 1, "num_key_value_heads": 20, "rms_norm_eps": 1e-5,
        "partial_rotary_factor": 1.0
    });
    let config = config.with_defaults(&defaults);
    LatentDecoder {
        experts: Some(LateExperts::read(config, sigmoid_routing(config)?)?),
        ..LatentDecoder::new(read_pairs(config)?)
    }
    .read(config, FAMILY.architecture)
}
