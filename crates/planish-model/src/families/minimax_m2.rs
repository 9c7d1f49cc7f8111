//! MiniMaxM2ForCausalLM: heads normalized together, half of each rotated, routed experts with logistic scores.

use planish_ops::{Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, Llama};
use super::common_experts::{Paths, Routed};
use super::parts::only;
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, Error, ScoreCorrectionSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "MiniMaxM2ForCausalLM",
    model_type: "minimax_m2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    // Published checkpoints say how many values are rotated, not which part of a head.
    let head_dim = config.optional_count("head_dim")?.unwrap_or(128);
    let rotated = config.optional_count("rotary_dim")?.unwrap_or(head_dim);
    let defaults = json!({
        "num_key_value_heads": 8, "head_dim": 128, "num_experts_per_tok": 8, "num_local_experts": 256, "rope_theta": 5e6,
        "partial_rotary_factor": rotated as f64 / head_dim as f64
    });
    let config = config.with_defaults(&defaults);
    only(config, "use_qk_norm", true)?;
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?,
        scoring: Scoring::Sigmoid,
        groups: None,
        normalize: Some(0.0),
        scale: 1.0,
    };
    let routed = Routed::read(config, "intermediate_size", "num_local_experts", routing)?;
    let differences = Differences {
        head_norms: HeadNorms::Together,
        ..Differences::default()
    };
    let llama = Llama::read(config, differences)?;
    let rope = read_rope(config, llama.sizes.head_dim)?;
    llama.decoder_of(config, FAMILY.architecture, vec![rope], |index| {
        let paths = Paths::mixtral(index);
        let names = [&paths.hub, &paths.module];
        let mut layer = llama.layer(index);
        let mut experts = routed.at(&paths);
        experts.score_correction = Some(ScoreCorrectionSpec {
            names: names.map(|path| format!("{path}.e_score_correction_bias")).to_vec(),
            required: true,
        });
        layer.feed_forward = experts.into();
        Ok(llama.assemble(layer))
    })
}
