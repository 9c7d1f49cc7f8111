//! HYV3ForCausalLM (Hunyuan 3): heads normalized, routed experts with logistic scores and shared ones.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{LateExperts, sigmoid_routing_of};
use crate::config::Config;
use crate::{Architecture, Error, LinearSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "HYV3ForCausalLM",
    model_type: "hy_v3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let scale = config.optional_number("router_scaling_factor")?.unwrap_or(2.826);
    let defaults = json!({
        "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "head_dim": 128, "rope_theta": 11_158_840.0, "num_experts": 192,
        "num_experts_per_tok": 8, "num_shared_experts": 1, "moe_intermediate_size": 1536, "routed_scaling_factor": scale,
        "first_k_dense_replace": 1
    });
    let config = config.with_defaults(&defaults);
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let routing = sigmoid_routing_of(config, "num_experts")?;
    let experts =
        LateExperts::counted(config, routing, ["num_experts", "num_shared_experts"])?.with_shared_name("shared_mlp");
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        let Some(mut experts) = experts.at(sizes, index) else {
            return Ok(());
        };
        // Published names come first, and are the only ones of shared experts.
        let path = format!("model.layers.{index}.mlp");
        let router = LinearSpec::new(format!("{path}.router.gate"), experts.router[0].rows, sizes.hidden);
        experts.router.insert(0, router);
        if let Some(correction) = &mut experts.score_correction {
            correction.names.insert(0, format!("{path}.expert_bias"));
        }
        layer.feed_forward = experts.into();
        Ok(())
    })
}
