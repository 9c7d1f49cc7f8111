//! MiniCPM3ForCausalLM: MiniCPM with latent attention.

use planish_ops::RopePairs;
use serde_json::json;

use super::Family;
use super::common_latent::LatentDecoder;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "MiniCPM3ForCausalLM",
    model_type: "minicpm3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let value = config.count("hidden_size")? / config.count("num_attention_heads")?;
    let defaults = json!({
        "kv_lora_rank": 256, "q_lora_rank": 768, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": value,
        "num_key_value_heads": 40, "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "scale_emb": 12, "scale_depth": 1.4,
        "dim_model_base": 256
    });
    let config = config.with_defaults(&defaults);
    let layers = config.layers("num_hidden_layers")? as f64;
    let depth = config.optional_number("scale_depth")?;
    let decoder = LatentDecoder {
        residual_scale: depth.map_or(1.0, |depth| depth / layers.sqrt()) as f32,
        ..LatentDecoder::new(RopePairs::Halves)
    };
    let mut architecture = decoder.read(config, FAMILY.architecture)?;
    architecture.embedding.scale = config.number("scale_emb")? as f32;
    if let Some(base) = config.optional_count("dim_model_base")? {
        architecture.logits.scale = (base as f64 / architecture.hidden as f64) as f32;
    }
    Ok(architecture)
}
