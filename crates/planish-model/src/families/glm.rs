//! GlmForCausalLM: Llama with biases on query, key and value, one tensor for gate and up, and half of each head rotated,
//! neighbours together.

use planish_ops::RopePairs;
use serde_json::{Value, json};

use super::Family;
use super::common::{Differences, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "GlmForCausalLM",
    model_type: "glm",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = defaults();
    let config = config.with_defaults(&defaults);
    llama_like(config, FAMILY.architecture, differences(config)?, |_, _| Ok(()))
}

/// Of GLM and GLM 4.
pub(super) fn defaults() -> Value {
    json!({
        "head_dim": 128, "num_key_value_heads": 2, "partial_rotary_factor": 0.5, "attention_bias": true,
        "rms_norm_eps": 0.00000015625
    })
}

/// Of GLM and GLM 4.
pub(super) fn differences(config: Config<'_>) -> Result<Differences, Error> {
    Ok(Differences {
        query_bias: config.flag("attention_bias", true)?,
        pairs: RopePairs::Neighbours,
        fused_gate: true,
        ..Differences::default()
    })
}
