//! CohereCompassForCausalLM (North, the text part): Cohere 2 whose heads are rotated by halves, in the kinds of layers that
//! `rope_parameters` names.

use planish_ops::RopePairs;
use serde_json::json;

use super::Family;
use super::cohere::differences;
use super::common::{Differences, Llama};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "CohereCompassForCausalLM",
    model_type: "cohere_compass_text",
    translate,
};

const KINDS: [&str; 2] = ["full_attention", "sliding_attention"];

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "layer_norm_eps": 1e-5, "logit_scale": 1.0, "tie_word_embeddings": true, "sliding_window": 4096,
        "rope_parameters": {}
    });
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        pairs: RopePairs::Halves,
        ..differences(config)?
    };
    let llama = Llama::read(config, differences)?;
    let parameters = config.object("rope_parameters")?;
    let mut ropes = Vec::new();
    // Of each kind, where it is rotated.
    let mut indices = [None; 2];
    for (kind, index) in KINDS.into_iter().zip(&mut indices) {
        if parameters.is_some_and(|kinds| kinds.value(kind).is_some()) {
            *index = Some(ropes.len());
            ropes.push(read_rope_of_kind(config, kind, "rope_theta", llama.sizes.head_dim)?);
        }
    }
    let window = config.optional_count("sliding_window")?;
    let mut architecture = llama.decoder(config, FAMILY.architecture, ropes, |index, attention| {
        attention.window = window_of_layer(config, window, |_| false, index)?;
        attention.rope = indices[usize::from(attention.window.is_some())];
        Ok(())
    })?;
    architecture.logits.scale = config.optional_number("logit_scale")?.unwrap_or(1.0) as f32;
    Ok(architecture)
}
