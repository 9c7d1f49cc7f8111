//! Qwen3ForCausalLM: Llama with normalized query and key heads, of 128 values unless the config says otherwise.

use super::Family;
use super::common::{Differences, llama_like};
use super::qwen2::qwen_window;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: true,
        head_dim: 128,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |index| {
        qwen_window(config, index)
    })
}
