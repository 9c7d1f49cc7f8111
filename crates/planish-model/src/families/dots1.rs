//! Dots1ForCausalLM: dense layers first, then routed experts and shared ones; normalized heads; windows in the upper layers.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{LateExperts, sigmoid_routing};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Dots1ForCausalLM",
    model_type: "dots1",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 32, "moe_intermediate_size": 1408, "routed_scaling_factor": 1.0, "norm_topk_prob": false,
        "sliding_window": 4096, "max_window_layers": 62
    });
    let config = config.with_defaults(&defaults);
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let experts = LateExperts::read(config, sigmoid_routing(config)?)?;
    let window = config.optional_count("sliding_window")?;
    let first = config.whole("max_window_layers", 62)?;
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        layer.attention.window = window_of_layer(config, window, |index| index >= first, index)?;
        if let Some(experts) = experts.at(sizes, index) {
            layer.feed_forward = experts.into();
        }
        Ok(())
    })
}
