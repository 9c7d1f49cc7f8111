//! Ministral3ForCausalLM: Mistral whose scores grow with the position.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use crate::config::Config;
use crate::{Architecture, Error, TemperatureTuning};

pub(super) const FAMILY: Family = Family {
    architecture: "Ministral3ForCausalLM",
    model_type: "ministral3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "head_dim": 128, "num_key_value_heads": 8, "rms_norm_eps": 1e-5, "rope_parameters": {
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1
        }
    });
    let config = config.with_defaults(&defaults);
    let window = config.optional_count("sliding_window")?;
    let temperature_tuning = read_tuning(config)?;
    llama_like(config, FAMILY.architecture, Differences::default(), |_, attention| {
        attention.temperature_tuning = Some(temperature_tuning);
        attention.window = window;
        Ok(())
    })
}

/// How scores grow, by keys of the position encoding.
pub(super) fn read_tuning(config: Config<'_>) -> Result<TemperatureTuning, Error> {
    let parameters = config.object("rope_scaling")?.or(config.object("rope_parameters")?);
    let parameters = parameters.ok_or_else(|| config.error("rope_parameters", "an object"))?;
    Ok(TemperatureTuning {
        rate: parameters.number("llama_4_scaling_beta")? as f32,
        period: parameters.count("original_max_position_embeddings")?,
    })
}
