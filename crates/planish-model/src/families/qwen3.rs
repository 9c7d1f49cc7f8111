//! Qwen3ForCausalLM: Llama with normalized query and key heads, of 128 values unless the config says otherwise.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, llama_like};
use super::qwen2::qwen_window;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen3ForCausalLM",
    model_type: "qwen3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"head_dim": 128, "num_key_value_heads": 32, "sliding_window": 4096});
    let config = config.with_defaults(&defaults);
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |index, attention| {
        attention.window = qwen_window(config, index)?;
        Ok(())
    })
}
