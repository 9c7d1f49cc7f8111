//! InternLM3ForCausalLM: Llama with other words for its biases.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "InternLM3ForCausalLM",
    model_type: "internlm3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5, "num_key_value_heads": 2, "head_dim": 128});
    let config = config.with_defaults(&defaults);
    let attention_bias = config.flag("qkv_bias", config.flag("attention_bias", false)?)?;
    let feed_forward_bias = config.flag("bias", config.flag("mlp_bias", false)?)?;
    if attention_bias != feed_forward_bias {
        return Err(config.error("qkv_bias", "what bias says"));
    }
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        feed_forward_bias,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))
}
