//! Lfm2MoeForCausalLM: LFM2 with routed experts in most layers.

use planish_ops::{Activation, Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common_experts::{Paths, Routed};
use super::lfm2::lfm2_like;
use super::parts::Sizes;
use crate::config::Config;
use crate::{Architecture, Error, ExpertsSpec, ScoreCorrectionSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Lfm2MoeForCausalLM",
    model_type: "lfm2_moe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rope_theta": 1e6, "num_key_value_heads": 8, "moe_intermediate_size": 1792, "num_dense_layers": 2, "num_experts": 32,
        "num_experts_per_tok": 4, "routed_scaling_factor": 1.0
    });
    let config = config.with_defaults(&defaults);
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?,
        scoring: Scoring::Sigmoid,
        groups: None,
        normalize: config.flag("norm_topk_prob", true)?.then_some(1e-6),
        scale: config.number("routed_scaling_factor")? as f32,
    };
    let routed = Routed {
        activation: Activation::Silu,
        ..Routed::read(config, "moe_intermediate_size", "num_experts", routing)?
    };
    let (first, corrected) = (
        config.whole("num_dense_layers", 0)?,
        config.flag("use_expert_bias", true)?,
    );
    let sizes = Sizes::read(config, 0)?;
    lfm2_like(config, FAMILY.architecture, sizes, |index, dense| {
        if index < first {
            return Ok(dense.into());
        }
        let path = format!("model.layers.{index}.feed_forward");
        let score_correction = ScoreCorrectionSpec {
            names: vec![format!("{path}.expert_bias")],
            required: true,
        };
        let paths = Paths {
            hub: path.clone(),
            names: ["w1", "w3", "w2"],
            module: path,
        };
        let experts = ExpertsSpec {
            score_correction: corrected.then_some(score_correction),
            ..routed.at(&paths)
        };
        Ok(experts.into())
    })
}
