//! LlamaForCausalLM: Llama 1 to 3.3, SmolLM2 and everything that took their shape.

use super::Family;
use super::common::{Differences, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "LlamaForCausalLM",
    model_type: "llama",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))
}
