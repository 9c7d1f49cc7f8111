//! HeliumForCausalLM: Llama with neighbours of a head rotated together.

use planish_ops::RopePairs;
use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "HeliumForCausalLM",
    model_type: "helium",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "head_dim": 128, "num_key_value_heads": 20, "rms_norm_eps": 1e-8, "rope_theta": 100_000.0
    });
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        query_bias: config.flag("attention_bias", false)?,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        pairs: RopePairs::Neighbours,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))
}
