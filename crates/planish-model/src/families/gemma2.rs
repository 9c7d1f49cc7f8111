//! Gemma2ForCausalLM: Gemma with norms around both blocks, a window in every other layer, capped scores and logits.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::gemma::{NORM, scale_embedding};
use super::parts::{activation, only, window_of_layer};
use crate::config::Config;
use crate::{Architecture, Error, LogitsSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Gemma2ForCausalLM",
    model_type: "gemma2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "head_dim": 256, "tie_word_embeddings": true, "sliding_window": 4096, "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0
    });
    let config = config.with_defaults(&defaults);
    gemma2_like(config, FAMILY.architecture, differences(config)?)
}

/// A decoder of the Gemma 2 kind.
pub(super) fn gemma2_like(config: Config<'_>, name: &str, differences: Differences) -> Result<Architecture, Error> {
    let window = config.optional_count("sliding_window")?;
    let scale = score_scale(config)?;
    let softcap = cap(config, "attn_logit_softcapping")?;
    let mut architecture = llama_like(config, name, differences, |index, attention| {
        attention.window = window_of_layer(config, window, |index| index % 2 == 0, index)?;
        (attention.scale, attention.softcap) = (scale, softcap);
        Ok(())
    })?;
    architecture.logits = logits(config)?;
    Ok(scale_embedding(architecture))
}

/// Biases, activation and norms of Gemma 2 and 3.
pub(super) fn differences(config: Config<'_>) -> Result<Differences, Error> {
    only(config, "use_bidirectional_attention", false)?;
    let bias = config.flag("attention_bias", false)?;
    Ok(Differences {
        query_bias: bias,
        output_bias: bias,
        activation: Some(activation(config, "hidden_activation", "gelu_pytorch_tanh")?),
        norm: NORM,
        norms: [
            Some("input_layernorm"),
            Some("post_attention_layernorm"),
            Some("pre_feedforward_layernorm"),
            Some("post_feedforward_layernorm"),
        ],
        ..Differences::default()
    })
}

/// What multiplies scores, in place of that of the head's size.
pub(super) fn score_scale(config: Config<'_>) -> Result<f32, Error> {
    match config.number("query_pre_attn_scalar")? {
        scalar if scalar > 0.0 => Ok(scalar.powf(-0.5) as f32),
        _ => Err(config.error("query_pre_attn_scalar", "a positive number")),
    }
}

/// Capped logits.
pub(super) fn logits(config: Config<'_>) -> Result<LogitsSpec, Error> {
    Ok(LogitsSpec {
        scale: 1.0,
        softcap: cap(config, "final_logit_softcapping")?,
    })
}

fn cap(config: Config<'_>, key: &str) -> Result<Option<f32>, Error> {
    match config.optional_number(key)? {
        Some(cap) if cap <= 0.0 => Err(config.error(key, "a positive number")),
        cap => Ok(cap.map(|cap| cap as f32)),
    }
}
