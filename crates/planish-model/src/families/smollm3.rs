//! SmolLM3ForCausalLM: Llama where every fourth layer rotates nothing; such layers may have a window.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "SmolLM3ForCausalLM",
    model_type: "smollm3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rope_theta": 2e6, "tie_word_embeddings": true, "no_rope_layer_interval": 4});
    let config = config.with_defaults(&defaults);
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        ..Differences::default()
    };
    let window = match config.flag("use_sliding_window", false)? {
        true => config.optional_count("sliding_window")?,
        false => None,
    };
    let rotates = rotating_layers(config)?;
    llama_like(config, FAMILY.architecture, differences, |index, attention| {
        attention.rope = Some(0).filter(|_| rotates[index]);
        attention.window = window_of_layer(config, window, |index| !rotates[index], index)?;
        Ok(())
    })
}

/// `no_rope_layers`, which has 1 for layers that do rotate, or every layer but those at the interval.
fn rotating_layers(config: Config<'_>) -> Result<Vec<bool>, Error> {
    let layers = config.layers("num_hidden_layers")?;
    let Some(value) = config.value("no_rope_layers") else {
        let interval = config.count("no_rope_layer_interval")?;
        return Ok((1..=layers).map(|layer| !layer.is_multiple_of(interval)).collect());
    };
    let flags: Option<Vec<bool>> = value
        .as_array()
        .and_then(|flags| flags.iter().map(|flag| flag.as_u64().map(|flag| flag != 0)).collect());
    flags
        .filter(|flags| flags.len() >= layers)
        .ok_or_else(|| config.error("no_rope_layers", "0 or 1 for every layer"))
}
