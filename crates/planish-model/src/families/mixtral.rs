//! MixtralForCausalLM: Mistral with routed experts in place of the feed-forward blocks.

use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "MixtralForCausalLM",
    model_type: "mixtral",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_key_value_heads": 8, "num_experts_per_tok": 2, "num_local_experts": 8
    });
    let config = config.with_defaults(&defaults);
    let routed = Routed::read(
        config,
        "intermediate_size",
        "num_local_experts",
        softmax_routing(config, "num_experts_per_tok", true)?,
    )?;
    let window = config.optional_count("sliding_window")?;
    adapted_layers(
        config,
        FAMILY.architecture,
        Differences::default(),
        |_, index, layer| {
            layer.attention.window = window;
            layer.feed_forward = routed.at(&Paths::mixtral(index)).into();
            Ok(())
        },
    )
}
