//! Glm4MoeForCausalLM (GLM 4.5 and 4.6): dense layers first, then routed experts and a shared one; half of a head is rotated.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{LateExperts, sigmoid_routing};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Glm4MoeForCausalLM",
    model_type: "glm4_moe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "partial_rotary_factor": 0.5, "moe_intermediate_size": 1408,
        "num_experts_per_tok": 8, "n_routed_experts": 128, "n_shared_experts": 1, "routed_scaling_factor": 1.0,
        "first_k_dense_replace": 1
    });
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        query_bias: config.flag("attention_bias", false)?,
        head_norms: match config.flag("use_qk_norm", false)? {
            true => HeadNorms::Shared,
            false => HeadNorms::None,
        },
        ..Differences::default()
    };
    let experts = LateExperts::read(config, sigmoid_routing(config)?)?;
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        if let Some(experts) = experts.at(sizes, index) {
            layer.feed_forward = experts.into();
        }
        Ok(())
    })
}
