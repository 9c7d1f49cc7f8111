//! Qwen2MoeForCausalLM: Qwen 2 with routed experts, and a shared one behind a gate, in most layers.

use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use super::parts::{Sizes, window_of_layer};
use crate::config::Config;
use crate::{Architecture, Error, ExpertsSpec, LinearSpec, SharedExpertsSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen2MoeForCausalLM",
    model_type: "qwen2_moe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 16, "sliding_window": 4096, "decoder_sparse_step": 1, "moe_intermediate_size": 1408,
        "shared_expert_intermediate_size": 5632, "num_experts_per_tok": 4, "num_experts": 60
    });
    let config = config.with_defaults(&defaults);
    let routing = softmax_routing(config, "num_experts_per_tok", config.flag("norm_topk_prob", false)?)?;
    let routed = Routed::read(config, "moe_intermediate_size", "num_experts", routing)?;
    let shared_inner = config.count("shared_expert_intermediate_size")?;
    let differences = Differences {
        query_bias: config.flag("qkv_bias", true)?,
        ..Differences::default()
    };
    let window = match config.flag("use_sliding_window", false)? {
        true => config.optional_count("sliding_window")?,
        false => None,
    };
    let below = config.optional_number("max_window_layers")?.unwrap_or(28.0) as usize;
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        let slides = |index: usize| index.is_multiple_of(2) && index < below;
        layer.attention.window = window_of_layer(config, window, slides, index)?;
        if !is_sparse(config, index)? {
            return Ok(());
        }
        layer.feed_forward = experts(&routed, sizes, shared_inner, index).into();
        Ok(())
    })
}

/// The experts of a layer, and the shared one behind its gate, with `shared_inner` values between its products.
pub(super) fn experts(routed: &Routed, sizes: &Sizes, shared_inner: usize, index: usize) -> ExpertsSpec {
    let paths = Paths::usual(index);
    let path = &paths.hub;
    let gate = LinearSpec::new(format!("{path}.shared_expert_gate"), 1, sizes.hidden);
    let shared = routed.shared(sizes, &format!("{path}.shared_expert"), shared_inner, false);
    ExpertsSpec {
        shared: Some(SharedExpertsSpec {
            gate: Some(gate),
            ..shared
        }),
        ..routed.at(&paths)
    }
}

/// Whether a layer of Qwen 2 or 3 has experts.
pub(super) fn is_sparse(config: Config<'_>, index: usize) -> Result<bool, Error> {
    let dense = config.numbers("mlp_only_layers")?.unwrap_or_default();
    Ok(!dense.contains(&(index as f64)) && (index + 1).is_multiple_of(config.count("decoder_sparse_step")?))
}
