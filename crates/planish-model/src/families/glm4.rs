//! Glm4ForCausalLM: GLM with norms after the blocks too.

use super::Family;
use super::common::{Differences, llama_like};
use super::glm::{defaults, differences};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Glm4ForCausalLM",
    model_type: "glm4",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = defaults();
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        norms: [
            Some("input_layernorm"),
            Some("post_self_attn_layernorm"),
            Some("post_attention_layernorm"),
            Some("post_mlp_layernorm"),
        ],
        ..differences(config)?
    };
    llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))
}
