//! MiniCPMForCausalLM (1, 2 and 4, whose code stands beside the checkpoints): Llama with factors on embeddings, residuals and
//! what enters the head.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::parts::refuse;
use crate::config::Config;
use crate::{Architecture, Error, RopeScaling, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "MiniCPMForCausalLM",
    model_type: "minicpm",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"scale_emb": 1.0, "scale_depth": 1.0, "dim_model_base": 1.0, "tie_word_embeddings": true});
    let config = config.with_defaults(&defaults);
    refuse(config, "sparse_config")?;
    if config.optional_number("num_experts")?.unwrap_or(0.0) != 0.0 {
        return Err(config.error("num_experts", "0"));
    }
    let bias = config.flag("attention_bias", false)?;
    let layers = config.layers("num_hidden_layers")? as f64;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        residual_scale: (config.number("scale_depth")? / layers.sqrt()) as f32,
        ..Differences::default()
    };
    let mut architecture = llama_like(config, FAMILY.architecture, differences, |_, _| Ok(()))?;
    architecture.embedding.scale = config.number("scale_emb")? as f32;
    architecture.logits.scale = (config.number("dim_model_base")? / architecture.hidden as f64) as f32;
    for rope in &mut architecture.ropes {
        only_long(rope, architecture.context);
    }
    Ok(architecture)
}

/// A model made for more than the context of its pretraining uses the long factors for short sequences too.
fn only_long(rope: &mut RopeSpec, made_for: usize) {
    match &mut rope.scaling {
        RopeScaling::LongRope {
            short, long, context, ..
        } if made_for > *context => short.clone_from(long),
        _ => {}
    }
}
