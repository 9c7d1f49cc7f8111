//! SolarOpenForCausalLM: GLM 4.5 without dense layers and without norms of heads.

use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use super::common_experts::{LateExperts, sigmoid_routing};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "SolarOpenForCausalLM",
    model_type: "solar_open",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    // No layer has the feed-forward block that `intermediate_size` is the size of.
    let defaults = json!({
        "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "head_dim": 128, "partial_rotary_factor": 1.0, "rope_theta": 1e6,
        "moe_intermediate_size": 1280, "num_experts_per_tok": 8, "n_routed_experts": 128, "n_shared_experts": 1,
        "routed_scaling_factor": 1.0, "intermediate_size": 1280
    });
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        query_bias: config.flag("attention_bias", false)?,
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
