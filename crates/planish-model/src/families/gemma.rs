//! GemmaForCausalLM: Llama with scaled embeddings and norms whose stored weights are less one.

use planish_ops::{Activation, NormKind};
use serde_json::json;

use super::Family;
use super::common::{Differences, NormStyle, llama_like};
use super::parts::only;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "GemmaForCausalLM",
    model_type: "gemma",
    translate,
};

/// The norms of every Gemma.
pub(super) const NORM: NormStyle = NormStyle {
    kind: NormKind::Rms,
    offset: 1.0,
    epsilon_key: "rms_norm_eps",
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "head_dim": 256, "hidden_act": "gelu_pytorch_tanh", "tie_word_embeddings": true, "num_key_value_heads": 16
    });
    let config = config.with_defaults(&defaults);
    only(config, "use_bidirectional_attention", false)?;
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        // The first checkpoints say "gelu" and mean the approximation.
        activation: (config.optional_text("hidden_act")? == Some("gelu")).then_some(Activation::GeluTanh),
        norm: NORM,
        ..Differences::default()
    };
    let architecture = llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))?;
    Ok(scale_embedding(architecture))
}

/// By the square root of the hidden size, not rounded to the type of the weights: as transformers in f32. In bf16 it
/// multiplies by that root in bf16, up to 0.2 % off.
pub(super) fn scale_embedding(mut architecture: Architecture) -> Architecture {
    architecture.embedding.scale = (architecture.hidden as f64).sqrt() as f32;
    architecture
}
