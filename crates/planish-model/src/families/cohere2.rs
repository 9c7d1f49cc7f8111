//! Cohere2ForCausalLM (Command R7B, Command A): Cohere with a window in three layers of four; the others rotate nothing.

use serde_json::json;

use super::Family;
use super::cohere::differences;
use super::common::llama_like;
use super::parts::{only, window_of_layer};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Cohere2ForCausalLM",
    model_type: "cohere2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": true, "sliding_window": 4096,
        "sliding_window_pattern": 4
    });
    let config = config.with_defaults(&defaults);
    only(config, "use_qk_norm", false)?;
    only(config, "use_parallel_block", true)?;
    only(config, "use_gated_activation", true)?;
    let window = config.optional_count("sliding_window")?;
    let pattern = config.count("sliding_window_pattern")?;
    let slides = |index: usize| !(index + 1).is_multiple_of(pattern);
    let mut architecture = llama_like(config, FAMILY.architecture, differences(config)?, |index, attention| {
        attention.window = window_of_layer(config, window, slides, index)?;
        attention.rope = attention.window.and(Some(0));
        Ok(())
    })?;
    architecture.logits.scale = config.number("logit_scale")? as f32;
    Ok(architecture)
}
