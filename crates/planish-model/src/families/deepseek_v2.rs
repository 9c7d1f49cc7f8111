//! DeepseekV2ForCausalLM: latent attention; routed experts weighed by a softmax, chosen from the best groups.

use planish_ops::{RopePairs, Routing};
use serde_json::json;

use super::Family;
use super::common_experts::{LateExperts, read_groups, softmax_routing};
use super::common_latent::LatentDecoder;
use super::parts::only;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "DeepseekV2ForCausalLM",
    model_type: "deepseek_v2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 64, "n_shared_experts": 2, "moe_intermediate_size": 1407, "routed_scaling_factor": 1.0
    });
    let config = config.with_defaults(&defaults);
    only(config, "norm_topk_prob", false)?;
    let routing = softmax_routing(config, "num_experts_per_tok", false)?;
    let routing = Routing {
        groups: match config.optional_text("topk_method")?.unwrap_or("greedy") {
            "greedy" => None,
            "group_limited_greedy" => read_groups(config, config.count("n_routed_experts")?, routing.chosen, 1)?,
            _ => return Err(config.error("topk_method", "greedy or group_limited_greedy")),
        },
        scale: config.number("routed_scaling_factor")? as f32,
        ..routing
    };
    LatentDecoder {
        experts: Some(LateExperts::read(config, routing)?),
        ..LatentDecoder::new(RopePairs::Neighbours)
    }
    .read(config, FAMILY.architecture)
}
