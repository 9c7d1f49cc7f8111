//! Mistral4ForCausalLM: latent attention whose scores grow with the position, experts weighed by a softmax.

use planish_ops::Routing;
use serde_json::json;

use super::Family;
use super::common_experts::{LateExperts, read_groups, softmax_routing};
use super::common_latent::{LatentDecoder, read_pairs};
use super::ministral3::read_tuning;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Mistral4ForCausalLM",
    model_type: "mistral4",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "kv_lora_rank": 256, "q_lora_rank": 1024, "qk_nope_head_dim": 64, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 128, "n_shared_experts": 1, "moe_intermediate_size": 2048, "routed_scaling_factor": 1.0,
        "num_experts_per_tok": 4, "num_key_value_heads": 32, "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 10000.0, "factor": 128.0, "original_max_position_embeddings": 8192,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1
        }
    });
    let config = config.with_defaults(&defaults);
    let routing = softmax_routing(config, "num_experts_per_tok", config.flag("norm_topk_prob", true)?)?;
    let routing = Routing {
        groups: read_groups(config, config.count("n_routed_experts")?, routing.chosen, 2)?,
        scale: config.number("routed_scaling_factor")? as f32,
        ..routing
    };
    LatentDecoder {
        experts: Some(LateExperts::read(config, routing)?),
        temperature_tuning: Some(read_tuning(config)?),
        ..LatentDecoder::new(read_pairs(config)?)
    }
    .read(config, FAMILY.architecture)
}
