//! DeepseekV3ForCausalLM (V3 and R1): latent attention; routed experts with logistic scores and a correction.

use serde_json::json;

use super::Family;
use super::common_experts::{LateExperts, sigmoid_routing};
use super::common_latent::{LatentDecoder, read_pairs};
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
    LatentDecoder {
        experts: Some(LateExperts::read(config, sigmoid_routing(config)?)?),
        ..LatentDecoder::new(read_pairs(config)?)
    }
    .read(config, FAMILY.architecture)
}
