//! GraniteForCausalLM: Llama with factors on embeddings, scores, residuals and logits.

use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use crate::config::Config;
use crate::{Architecture, BlockSpec, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "GraniteForCausalLM",
    model_type: "granite",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    granite_like(config, FAMILY.architecture, |_| Ok(None))
}

/// A decoder of the Granite kind with other blocks in place of the feed-forward blocks of the layers that have some.
pub(super) fn granite_like(
    config: Config<'_>,
    name: &str,
    replacement: impl Fn(usize) -> Result<Option<BlockSpec>, Error>,
) -> Result<Architecture, Error> {
    let defaults = json!({
        "embedding_multiplier": 1.0, "logits_scaling": 1.0, "residual_multiplier": 1.0, "attention_multiplier": 1.0
    });
    let config = config.with_defaults(&defaults);
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        residual_scale: config.number("residual_multiplier")? as f32,
        ..Differences::default()
    };
    let scale = config.number("attention_multiplier")? as f32;
    let mut architecture = adapted_layers(config, name, differences, |_, index, layer| {
        layer.attention.scale = scale;
        if let Some(block) = replacement(index)? {
            layer.feed_forward = block;
        }
        Ok(())
    })?;
    architecture.embedding.scale = config.number("embedding_multiplier")? as f32;
    architecture.logits.scale = match config.number("logits_scaling")? {
        0.0 => return Err(config.error("logits_scaling", "a number other than 0")),
        divisor => (1.0 / divisor) as f32,
    };
    Ok(architecture)
}
