//! CwmForCausalLM: Llama with a window in three of four layers.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "CwmForCausalLM",
    model_type: "cwm",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "num_key_value_heads": 8, "head_dim": 128, "sliding_window": 8192, "rope_theta": 1e6,
        "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 1e6, "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        }
    });
    let config = config.with_defaults(&defaults);
    let window = config.optional_count("sliding_window")?;
    let differences = Differences {
        feed_forward_bias: config.flag("mlp_bias", false)?,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |index, attention| {
        attention.window = window_of_layer(config, window, |index| !index.is_multiple_of(4), index)?;
        Ok(())
    })
}
