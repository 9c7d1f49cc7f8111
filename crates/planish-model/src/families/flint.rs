//! FlintForCausalLM and Kolibri1ForCausalLM: Qwen 3 with routed experts of logistic scores and one that computes every row; windows in
//! most layers, and rotation in those alone. Flint has sinks, Kolibri norms around its blocks and a correction of logits.

use planish_ops::{Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{Paths, Routed};
use super::parts::window_of_layer;
use super::qwen2_moe::is_sparse;
use crate::config::Config;
use crate::{Architecture, Error, ExpertsSpec, ScoreCorrectionSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "FlintForCausalLM",
    model_type: "flint",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 4, "head_dim": 128, "sliding_window": 513, "moe_intermediate_size": 512, "num_experts": 256,
        "shared_expert_intermediate_size": 1024, "num_experts_per_tok": 6, "decoder_sparse_step": 1, "mlp_only_layers": [0, 1]
    });
    let config = config.with_defaults(&defaults);
    let routed = read(config, Scoring::Sigmoid, true)?;
    let shared = config.count("shared_expert_intermediate_size")?;
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let window = config.optional_count("sliding_window")?;
    let last = config.layers("num_hidden_layers")? - 1;
    let slides = |index: usize| index >= 2 && index % 4 != 1 && index != last;
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        let attention = &mut layer.attention;
        attention.window = window_of_layer(config, window, slides, index)?;
        attention.rope = attention.window.map(|_| 0);
        attention.sinks = Some(format!("model.layers.{index}.self_attn.softmax_offset"));
        if is_sparse(config, index)? {
            let paths = Paths::usual(index);
            let path = format!("{}.shared_expert", paths.hub);
            layer.feed_forward = ExpertsSpec {
                shared: Some(routed.shared(sizes, &path, shared, false)),
                ..routed.at(&paths)
            }
            .into();
        }
        Ok(())
    })
}

pub(super) const KOLIBRI_FAMILY: Family = Family {
    architecture: "Kolibri1ForCausalLM",
    model_type: "kolibri1",
    translate: translate_kolibri,
};

fn translate_kolibri(config: Config<'_>) -> Result<Architecture, Error> {
    // No layer has the feed-forward block that `intermediate_size` is the size of.
    let defaults = json!({
        "num_key_value_heads": 4, "head_dim": 128, "sliding_window": 513, "moe_intermediate_size": 512, "num_experts": 384,
        "shared_expert_intermediate_size": 512, "num_experts_per_tok": 6, "intermediate_size": 512
    });
    let config = config.with_defaults(&defaults);
    let routed = read(config, Scoring::SigmoidOfChosen, false)?;
    let shared = config.count("shared_expert_intermediate_size")?;
    let differences = Differences {
        head_norms: HeadNorms::Shared,
        norms: [
            Some("input_layernorm"),
            Some("post_attn_norm"),
            Some("post_attention_layernorm"),
            Some("post_ffn_norm"),
        ],
        ..Differences::default()
    };
    let window = config.optional_count("sliding_window")?;
    let slides = |index: usize| !(index + 1).is_multiple_of(5);
    adapted_layers(
        config,
        KOLIBRI_FAMILY.architecture,
        differences,
        |sizes, index, layer| {
            let attention = &mut layer.attention;
            attention.window = window_of_layer(config, window, slides, index)?;
            attention.rope = attention.window.map(|_| 0);
            let paths = Paths::usual(index);
            let path = &paths.hub;
            let names = ["moe.router.expert_bias", "gate.e_score_correction_bias"];
            let score_correction = ScoreCorrectionSpec {
                names: vec![
                    format!("model.layers.{index}.{}", names[0]),
                    format!("{path}.{}", names[1]),
                ],
                required: true,
            };
            layer.feed_forward = ExpertsSpec {
                score_correction: Some(score_correction),
                shared: Some(routed.shared(sizes, &format!("{path}.shared_experts"), shared, false)),
                ..routed.at(&paths)
            }
            .into();
            Ok(())
        },
    )
}

/// The routed experts of both; `normalized` is for configs that do not say it.
fn read(config: Config<'_>, scoring: Scoring, normalized: bool) -> Result<Routed, Error> {
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?,
        scoring,
        groups: None,
        normalize: config.flag("norm_topk_prob", normalized)?.then_some(0.0),
        scale: 1.0,
    };
    let experts_key = match config.value("num_local_experts") {
        Some(_) => "num_local_experts",
        None => "num_experts",
    };
    Routed::read(config, "moe_intermediate_size", experts_key, routing)
}
