//! Cohere2MoeForCausalLM (Command A+): Cohere 2 with routed experts behind its first layers.

use planish_ops::{Routing, Scoring};
use serde_json::json;

use super::Family;
use super::cohere::differences;
use super::common::{Differences, Llama, NormStyle};
use super::common_experts::{Paths, Routed, read_kinds};
use super::parts::{Sizes, activation, window_of_layer};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, Error, ExpertsSpec, RopePairs, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Cohere2MoeForCausalLM",
    model_type: "cohere2_moe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": true, "sliding_window": 4096, "head_dim": 128,
        "sliding_window_pattern": 4, "prefix_dense_sliding_window_pattern": 1, "num_experts": 8, "num_experts_per_tok": 2,
        "num_shared_experts": 0, "shared_expert_combination_strategy": "average", "expert_selection_fn": "softmax",
        "first_k_dense_replace": 0
    });
    let config = config.with_defaults(&defaults);
    let routed = Routed::read(config, "intermediate_size", "num_experts", routing(config)?)?;
    let differences = match config.value("rms_norm_eps") {
        Some(_) => Differences {
            norm: NormStyle::RMS,
            ..differences(config)?
        },
        None => differences(config)?,
    };
    let llama = Llama::read(config, differences)?;
    let sizes = &llama.sizes;
    let rope = RopeSpec {
        pairs: RopePairs::Neighbours,
        ..read_rope(config, sizes.head_dim)?
    };
    let (dense, kinds) = (config.whole("first_k_dense_replace", 0)?, read_kinds(config)?);
    let is_dense = |index: usize| match &kinds {
        Some(kinds) => !kinds[index],
        None => index < dense,
    };
    let window = config.optional_count("sliding_window")?;
    let patterns = [
        config.count("prefix_dense_sliding_window_pattern")?,
        config.count("sliding_window_pattern")?,
    ];
    let slides = |index: usize| match index < dense {
        true => !(index + 1).is_multiple_of(patterns[0]),
        false => !(index - dense + 1).is_multiple_of(patterns[1]),
    };
    let shared = config.whole("num_shared_experts", 0)? * sizes.intermediate;
    let averaged = averages(config)? && shared > 0;
    let activation = activation(config, "hidden_act", "silu")?;
    let mut architecture = llama.decoder_of(config, FAMILY.architecture, vec![rope], |index| {
        let mut layer = llama.layer(index);
        layer.attention.window = window_of_layer(config, window, slides, index)?;
        let rotated = layer.attention.window.is_some() || (is_dense(index) && patterns[0] == 1);
        layer.attention.rope = rotated.then_some(0);
        let paths = Paths::usual(index);
        if is_dense(index) {
            let intermediate = config.count("prefix_dense_intermediate_size")?;
            let sizes = Sizes { intermediate, ..*sizes };
            let names = ["gate_proj", "up_proj", "down_proj"];
            layer.feed_forward = sizes.gated(&paths.hub, names, false, activation).into();
            return Ok(llama.assemble(layer));
        }
        let path = format!("{}.shared_experts", paths.hub);
        layer.feed_forward = ExpertsSpec {
            shared: (shared > 0).then(|| routed.shared(sizes, &path, shared, false)),
            ..routed.at(&paths)
        }
        .into();
        let mut layer = llama.assemble(layer);
        if averaged {
            layer.branches_mut().skip(1).for_each(|branch| branch.scale = 0.5);
        }
        Ok(layer)
    })?;
    architecture.logits.scale = config.number("logit_scale")? as f32;
    Ok(architecture)
}

/// Who is chosen is the same by logits and by scores.
fn routing(config: Config<'_>) -> Result<Routing, Error> {
    const KEY: &str = "expert_selection_fn";
    let (scoring, normalize) = match config.optional_text(KEY)? {
        Some("softmax") => (Scoring::Softmax, Some(0.0)),
        Some("sigmoid") => (Scoring::Sigmoid, config.flag("norm_topk_prob", true)?.then_some(0.0)),
        _ => return Err(config.error(KEY, "softmax or sigmoid")),
    };
    Ok(Routing {
        chosen: config.count("num_experts_per_tok")?,
        scoring,
        groups: None,
        normalize,
        scale: 1.0,
    })
}

/// Whether routed and shared experts are averaged, not added up.
fn averages(config: Config<'_>) -> Result<bool, Error> {
    const KEY: &str = "shared_expert_combination_strategy";
    match config.optional_text(KEY)? {
        Some("average") => Ok(true),
        Some("sum") => Ok(false),
        _ => Err(config.error(KEY, "average or sum")),
    }
}
