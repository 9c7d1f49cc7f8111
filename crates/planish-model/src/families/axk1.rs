//! AXK1ForCausalLM (A.X K1): DeepSeek-V3 with a norm behind the experts.

use serde_json::json;

use super::Family;
use super::common_experts::{LateExperts, sigmoid_routing};
use super::common_latent::{LatentDecoder, read_pairs};
use crate::config::Config;
use crate::{Architecture, BlockSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "AXK1ForCausalLM",
    model_type: "axk1",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "n_routed_experts": 192, "n_shared_experts": 1, "moe_intermediate_size": 2048, "routed_scaling_factor": 2.5,
        "n_group": 8, "topk_group": 4, "num_experts_per_tok": 8, "first_k_dense_replace": 1, "num_key_value_heads": 64
    });
    let config = config.with_defaults(&defaults);
    let decoder = LatentDecoder {
        experts: Some(LateExperts::read(config, sigmoid_routing(config)?)?),
        ..LatentDecoder::new(read_pairs(config)?)
    };
    let mut architecture = decoder.read(config, FAMILY.architecture)?;
    let branches = |(index, layer)| LayerSpec::branches_mut(layer).map(move |branch| (index, branch));
    for (index, branch) in architecture.layers.iter_mut().enumerate().flat_map(branches) {
        if let (BlockSpec::Experts(_), Some(norm)) = (&branch.block, &branch.norm) {
            let name = format!("model.layers.{index}.post_mlp_layernorm");
            branch.post_norm = Some(NormSpec { name, ..norm.clone() });
        }
    }
    Ok(architecture)
}
