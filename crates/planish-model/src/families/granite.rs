//! GraniteForCausalLM: Llama with factors on embeddings, scores, residuals and logits.

use super::Family;
use super::common::{Differences, LlamaLayer, adapted_layers};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "GraniteForCausalLM",
    model_type: "granite",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    granite_like(config, FAMILY.architecture, |_, _| Ok(()))
}

/// A decoder of the Granite kind; `adapt` changes any part of a layer.
pub(super) fn granite_like(
    config: Config<'_>,
    name: &str,
    adapt: impl Fn(usize, &mut LlamaLayer) -> Result<(), Error>,
) -> Result<Architecture, Error> {
    let factor = |key: &str| Ok::<f64, Error>(config.optional_number(key)?.unwrap_or(1.0));
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        feed_forward_bias: config.flag("mlp_bias", false)?,
        residual_scale: factor("residual_multiplier")? as f32,
        ..Differences::default()
    };
    let scale = factor("attention_multiplier")? as f32;
    let mut architecture = adapted_layers(config, name, differences, |_, index, layer| {
        layer.attention.scale = scale;
        adapt(index, layer)
    })?;
    architecture.embedding.scale = factor("embedding_multiplier")? as f32;
    architecture.logits.scale = match factor("logits_scaling")? {
        0.0 => return Err(config.error("logits_scaling", "a number other than 0")),
        divisor => (1.0 / divisor) as f32,
    };
    Ok(architecture)
}
