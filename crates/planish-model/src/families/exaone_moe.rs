//! ExaoneMoeForCausalLM (K-EXAONE): windows as in EXAONE 4, norms before the blocks, routed experts.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{LateExperts, sigmoid_routing_of};
use super::exaone4::see;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "ExaoneMoeForCausalLM",
    model_type: "exaone_moe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "sliding_window": 4096, "num_key_value_heads": 32, "num_experts": 64, "num_experts_per_tok": 8,
        "num_shared_experts": 1, "moe_intermediate_size": 1024, "routed_scaling_factor": 2.5, "first_k_dense_replace": 1
    });
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let routing = sigmoid_routing_of(config, "num_experts")?;
    let experts = LateExperts::counted(config, routing, ["num_experts", "num_shared_experts"])?;
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        see(config, index, &mut layer.attention)?;
        if let Some(experts) = experts.at(sizes, index) {
            layer.feed_forward = experts.into();
        }
        Ok(())
    })
}
