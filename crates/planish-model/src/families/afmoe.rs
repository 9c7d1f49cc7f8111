//! AfmoeForCausalLM (Trinity): gated attention, rotated where it has a window; norms around blocks; routed experts.

use planish_ops::{Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{Paths, Routed};
use super::gemma::scale_embedding;
use super::parts::{linear, window_of_layer};
use crate::config::Config;
use crate::{Architecture, Error, ExpertsSpec, GateSpec, LinearSpec, ScoreCorrectionSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "AfmoeForCausalLM",
    model_type: "afmoe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "head_dim": 128, "num_dense_layers": 1, "num_experts": 64, "num_experts_per_tok": 6,
        "num_shared_experts": 2, "moe_intermediate_size": 1408, "route_scale": 1.0, "global_attn_every_n_layers": 4,
        "sliding_window": 1024
    });
    let config = config.with_defaults(&defaults);
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?,
        scoring: Scoring::Sigmoid,
        groups: None,
        normalize: Some(1e-20),
        scale: config.number("route_scale")? as f32,
    };
    let routed = Routed::read(config, "moe_intermediate_size", "num_experts", routing)?;
    let shared = config.whole("num_shared_experts", 0)? * routed.intermediate;
    let (dense, every) = (
        config.whole("num_dense_layers", 0)?,
        config.count("global_attn_every_n_layers")?,
    );
    let window = config.optional_count("sliding_window")?;
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        head_norms: HeadNorms::Shared,
        norms: [
            Some("input_layernorm"),
            Some("post_attention_layernorm"),
            Some("pre_mlp_layernorm"),
            Some("post_mlp_layernorm"),
        ],
        ..Differences::default()
    };
    let architecture = adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        let attention = &mut layer.attention;
        attention.window = window_of_layer(config, window, |index| !(index + 1).is_multiple_of(every), index)?;
        attention.rope = attention.window.map(|_| 0);
        let gate = format!("model.layers.{index}.self_attn.gate_proj");
        attention.gate = Some(GateSpec::new(linear(gate, attention.query.rows, sizes.hidden, false)));
        if index >= dense {
            let paths = Paths::usual(index);
            let path = &paths.hub;
            let router = LinearSpec::new(format!("{path}.router.gate"), routed.experts, routed.hidden);
            let score_correction = ScoreCorrectionSpec {
                names: vec![format!("{path}.expert_bias")],
                required: true,
            };
            let shared_path = format!("{path}.shared_experts");
            layer.feed_forward = ExpertsSpec {
                router: vec![router],
                score_correction: Some(score_correction),
                shared: (shared > 0).then(|| routed.shared(sizes, &shared_path, shared, false)),
                ..routed.at(&paths)
            }
            .into();
        }
        Ok(())
    })?;
    Ok(match config.flag("mup_enabled", false)? {
        true => scale_embedding(architecture),
        false => architecture,
    })
}
