//! Qwen2ForCausalLM: Llama with biases on query, key and value; a window in the upper layers where it is switched on.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen2ForCausalLM",
    model_type: "qwen2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_key_value_heads": 32, "sliding_window": 4096});
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        query_bias: true,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |index, attention| {
        attention.window = qwen_window(config, index)?;
        Ok(())
    })
}

/// The window of a layer of Qwen 2 and 3.
pub(super) fn qwen_window(config: Config<'_>, index: usize) -> Result<Option<usize>, Error> {
    let window = match config.flag("use_sliding_window", false)? {
        true => config.optional_count("sliding_window")?,
        false => None,
    };
    // 0 is a meaningful value here, which `optional_count` refuses.
    let first = config.optional_number("max_window_layers")?.unwrap_or(28.0) as usize;
    window_of_layer(config, window, |index| index >= first, index)
}
