//! IQuestCoderForCausalLM: Llama.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::parts::{only, refuse};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "IQuestCoderForCausalLM",
    model_type: "iquestcoder",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5, "num_key_value_heads": 8, "head_dim": 128});
    let config = config.with_defaults(&defaults);
    refuse(config, "clip_qkv")?;
    only(config, "use_sliding_window", false)?;
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))
}
