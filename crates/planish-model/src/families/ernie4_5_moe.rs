//! Ernie4_5_MoeForCausalLM: Llama that rotates neighbours, with routed and shared experts in a run of layers.

use planish_ops::{RopePairs, Routing};
use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use super::parts::Sizes;
use crate::config::Config;
use crate::{Architecture, Error, ExpertsSpec, HeadSpec, ScoreCorrectionSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Ernie4_5_MoeForCausalLM",
    model_type: "ernie4_5_moe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "num_key_value_heads": 4, "tie_word_embeddings": true,
        "moe_intermediate_size": 1536, "moe_k": 6, "moe_num_experts": 64, "moe_layer_interval": 1, "moe_norm_min": 1e-12
    });
    let config = config.with_defaults(&defaults);
    let routing = Routing {
        normalize: Some(config.number("moe_norm_min")? as f32),
        ..softmax_routing(config, "moe_k", true)?
    };
    let routed = Routed::read(config, "moe_intermediate_size", "moe_num_experts", routing)?;
    let shared = config.whole("moe_num_shared_experts", 2)?;
    let bias = config.flag("use_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        feed_forward_bias: bias,
        ..Differences::default()
    };
    let interval = config.count("moe_layer_interval")?;
    let first = config.whole("moe_layer_start_index", 1)?;
    let last = match config.optional_number("moe_layer_end_index")? {
        Some(last) if last >= 0.0 => last as usize,
        _ => usize::MAX,
    };
    let mut architecture = adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        if (first..=last).contains(&index) && (index + 1).is_multiple_of(interval) {
            layer.feed_forward = experts(&routed, sizes, shared, bias, index).into();
        }
        Ok(())
    })?;
    architecture.ropes[0].pairs = RopePairs::Neighbours;
    match &mut architecture.head {
        HeadSpec::Separate(head) => head.bias = bias,
        HeadSpec::Tied(_) if bias => return Err(config.error("tie_word_embeddings", "false where use_bias is true")),
        HeadSpec::Tied(_) => {}
    }
    Ok(architecture)
}

/// Files of mlx-lm lack the correction.
fn experts(routed: &Routed, sizes: &Sizes, shared: usize, bias: bool, index: usize) -> ExpertsSpec {
    let paths = Paths::usual(index);
    let path = &paths.hub;
    let mut experts = routed.at(&paths);
    experts.score_correction = Some(ScoreCorrectionSpec {
        names: ["moe_statics", "gate.moe_statics"]
            .map(|module| format!("{path}.{module}.e_score_correction_bias"))
            .into(),
        required: false,
    });
    if shared > 0 {
        experts.shared = Some(routed.shared(
            sizes,
            &format!("{path}.shared_experts"),
            shared * routed.intermediate,
            bias,
        ));
    }
    experts
}
