//! CohereForCausalLM (Command R): attention and feed-forward block side by side behind one layer norm, neighbours rotated,
//! scaled logits.

use planish_ops::{NormKind, RopePairs};
use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, NormStyle, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "CohereForCausalLM",
    model_type: "cohere",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "layer_norm_eps": 1e-5, "logit_scale": 0.0625, "tie_word_embeddings": true, "rope_theta": 500000.0
    });
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        head_norms: match config.flag("use_qk_norm", false)? {
            true => HeadNorms::Own,
            false => HeadNorms::None,
        },
        ..differences(config)?
    };
    let mut architecture = llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))?;
    architecture.logits.scale = config.number("logit_scale")? as f32;
    Ok(architecture)
}

/// Of the first and the second Cohere.
pub(super) fn differences(config: Config<'_>) -> Result<Differences, Error> {
    let bias = config.flag("attention_bias", false)?;
    Ok(Differences {
        query_bias: bias,
        output_bias: bias,
        pairs: RopePairs::Neighbours,
        norm: NormStyle {
            kind: NormKind::Layer,
            offset: 0.0,
            epsilon_key: "layer_norm_eps",
        },
        norms: [Some("input_layernorm"), None, Some("input_layernorm"), None],
        parallel: true,
        ..Differences::default()
    })
}
