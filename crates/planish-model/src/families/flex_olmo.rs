//! FlexOlmoForCausalLM: OLMo 2 with routed experts.

use serde_json::json;

use super::Family;
use super::common::adapted_layers;
use super::common_experts::{Paths, Routed, softmax_routing};
use super::olmo2::differences;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "FlexOlmoForCausalLM",
    model_type: "flex_olmo",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_experts_per_tok": 5, "num_experts": 7, "rope_theta": 500_000.0});
    let config = config.with_defaults(&defaults);
    let routing = softmax_routing(config, "num_experts_per_tok", config.flag("norm_topk_prob", false)?)?;
    let routed = Routed::read(config, "intermediate_size", "num_experts", routing)?;
    adapted_layers(config, FAMILY.architecture, differences(config)?, |_, index, layer| {
        layer.feed_forward = routed.at(&Paths::usual(index)).into();
        Ok(())
    })
}
