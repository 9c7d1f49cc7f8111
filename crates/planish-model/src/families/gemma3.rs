//! Gemma3ForCausalLM: Gemma 2 with normalized heads instead of capped scores, and a position encoding of its own for layers
//! with a window.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, Llama};
use super::gemma::scale_embedding;
use super::gemma2::{differences, logits, score_scale};
use super::parts::{refuse, window_of_layer};
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Gemma3ForCausalLM",
    model_type: "gemma3_text",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    // The text part of multimodal checkpoints says only what differs from these.
    let defaults = json!({
        "head_dim": 256, "tie_word_embeddings": true, "sliding_window": 4096,
        "query_pre_attn_scalar": 256, "sliding_window_pattern": 6, "rope_theta": 1e6, "rope_local_base_freq": 1e4,
        "max_position_embeddings": 131072, "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216,
        "num_hidden_layers": 26, "num_attention_heads": 8, "num_key_value_heads": 4
    });
    let config = config.with_defaults(&defaults);
    refuse(config, "attn_logit_softcapping")?;
    let llama = Llama::read(
        config,
        Differences {
            head_norms: HeadNorms::Shared,
            ..differences(config)?
        },
    )?;
    let ropes = vec![
        read_rope_of_kind(config, "full_attention", "rope_theta", llama.sizes.head_dim)?,
        read_rope_of_kind(
            config,
            "sliding_attention",
            "rope_local_base_freq",
            llama.sizes.head_dim,
        )?,
    ];
    let window = config.optional_count("sliding_window")?;
    let pattern = config.count("sliding_window_pattern")?;
    let scale = score_scale(config)?;
    let slides = |index: usize| !(index + 1).is_multiple_of(pattern);
    let mut architecture = llama.decoder(config, FAMILY.architecture, ropes, |index, attention| {
        attention.window = window_of_layer(config, window, slides, index)?;
        attention.rope = Some(usize::from(attention.window.is_some()));
        attention.scale = scale;
        Ok(())
    })?;
    architecture.logits = logits(config)?;
    Ok(scale_embedding(architecture))
}
