//! SeedOssForCausalLM: Llama with biases on query, key and value, and flags of their own for the others.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "SeedOssForCausalLM",
    model_type: "seed_oss",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"head_dim": 128, "num_key_value_heads": 8});
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        query_bias: config.flag("attention_bias", true)?,
        output_bias: config.flag("attention_out_bias", false)?,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))
}
