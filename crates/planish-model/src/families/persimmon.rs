//! PersimmonForCausalLM: layer norms, heads normalized before half of each is rotated, squared ReLU, biases everywhere.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, AttentionSpec, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "PersimmonForCausalLM",
    model_type: "persimmon",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"partial_rotary_factor": 0.5, "rope_theta": 25000.0});
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 0)?;
    let sizes = Sizes {
        kv_heads: sizes.heads,
        ..sizes
    };
    let epsilon = epsilon(config, "layer_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "relu2")?;
    let head_norms = config.flag("qk_layernorm", true)?;
    let norm = |name: String, size| NormSpec::layer(name, size, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let head_norm = |part: &str| head_norms.then(|| norm(path(part), sizes.head_dim));
        let name = path("self_attn.query_key_value");
        let fused = linear(name, sizes.fused_rows(), sizes.hidden, true);
        let output = linear(path("self_attn.dense"), sizes.hidden, sizes.hidden, true);
        let attention = AttentionSpec {
            query_norm: head_norm("self_attn.q_layernorm"),
            key_norm: head_norm("self_attn.k_layernorm"),
            ..sizes.attention_of(sizes.split_groups(&fused), output)
        };
        let feed_forward = sizes.plain(&path("mlp"), ["dense_h_to_4h", "dense_4h_to_h"], true, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("input_layernorm"), sizes.hidden), attention.into()),
            BranchSpec::new(
                norm(path("post_attention_layernorm"), sizes.hidden),
                feed_forward.into(),
            ),
        ]))
    };
    let final_norm = norm("model.final_layernorm".to_owned(), sizes.hidden);
    let head = sizes.head(config, "lm_head", false)?;
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}
