//! DeepseekV32ForCausalLM (V3.2) and GlmMoeDsaForCausalLM (GLM 5): DeepSeek-V3 whose layers choose what they see once a sequence is
//! longer than `index_topk`. Up to there they see all, and nothing of the indexer is read.

use planish_ops::RopePairs;
use serde_json::{Value, json};

use super::Family;
use super::common_experts::{LateExperts, sigmoid_routing};
use super::common_latent::LatentDecoder;
use crate::config::Config;
use crate::{Architecture, Error, PositionLimit};

pub(super) const FAMILY: Family = Family {
    architecture: "DeepseekV32ForCausalLM",
    model_type: "deepseek_v32",
    translate: |config| {
        let defaults = json!({
            "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
            "n_routed_experts": 256, "n_shared_experts": 1, "moe_intermediate_size": 2048, "routed_scaling_factor": 2.5,
            "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "num_key_value_heads": 128,
            "index_topk": 2048
        });
        indexed(config, &defaults, FAMILY.architecture)
    },
};

pub(super) const GLM_FAMILY: Family = Family {
    architecture: "GlmMoeDsaForCausalLM",
    model_type: "glm_moe_dsa",
    translate: |config| {
        let defaults = json!({
            "kv_lora_rank": 512, "q_lora_rank": 2048, "qk_nope_head_dim": 192, "qk_rope_head_dim": 64, "v_head_dim": 256,
            "n_routed_experts": 256, "n_shared_experts": 1, "moe_intermediate_size": 2048, "routed_scaling_factor": 2.5,
            "n_group": 1, "topk_group": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "num_key_value_heads": 64,
            "index_topk": 2048, "rms_norm_eps": 1e-5
        });
        indexed(config, &defaults, GLM_FAMILY.architecture)
    },
};

fn indexed(config: Config<'_>, defaults: &Value, name: &str) -> Result<Architecture, Error> {
    let config = config.with_defaults(defaults);
    let decoder = LatentDecoder {
        experts: Some(LateExperts::read(config, sigmoid_routing(config)?)?),
        ..LatentDecoder::new(RopePairs::Neighbours)
    };
    let mut architecture = decoder.read(config, name)?;
    let limit = PositionLimit {
        positions: config.count("index_topk")?,
        key: "index_topk",
    };
    architecture.limit = Some(limit);
    architecture.context = architecture.context.min(limit.positions);
    Ok(architecture)
}
