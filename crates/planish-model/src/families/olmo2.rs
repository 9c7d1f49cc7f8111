//! Olmo2ForCausalLM: Llama with norms after the blocks instead of before, and queries and keys normalized over all heads.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Olmo2ForCausalLM",
    model_type: "olmo2",
    translate,
};

/// Norms after the blocks only.
pub(super) const NORMS: [Option<&str>; 4] = [
    None,
    Some("post_attention_layernorm"),
    None,
    Some("post_feedforward_layernorm"),
];

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5});
    let config = config.with_defaults(&defaults);
    llama_like(config, FAMILY.architecture, differences(config)?, |_, _| Ok(()))
}

/// Of OLMo 2 and 3.
pub(super) fn differences(config: Config<'_>) -> Result<Differences, Error> {
    let bias = config.flag("attention_bias", false)?;
    Ok(Differences {
        query_bias: bias,
        output_bias: bias,
        head_norms: HeadNorms::Together,
        norms: NORMS,
        ..Differences::default()
    })
}
