//! MistralForCausalLM: Llama with a sliding window in every layer.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "MistralForCausalLM",
    model_type: "mistral",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"sliding_window": 4096, "num_key_value_heads": 8});
    let config = config.with_defaults(&defaults);
    let window = config.optional_count("sliding_window")?;
    llama_like(config, FAMILY.architecture, Differences::default(), |_, attention| {
        attention.window = window;
        Ok(())
    })
}
