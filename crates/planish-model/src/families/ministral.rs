//! MinistralForCausalLM: Mistral where `layer_types` says which layers have the window.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "MinistralForCausalLM",
    model_type: "ministral",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"sliding_window": 4096, "num_key_value_heads": 8});
    let config = config.with_defaults(&defaults);
    let window = config.optional_count("sliding_window")?;
    llama_like(
        config,
        FAMILY.architecture,
        Differences::default(),
        |index, attention| {
            attention.window = window_of_layer(config, window, |_| true, index)?;
            Ok(())
        },
    )
}
