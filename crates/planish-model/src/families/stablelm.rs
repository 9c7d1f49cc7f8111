//! StableLmForCausalLM: layer norms, a quarter of a head rotated; every head with a norm of its own, and attention and
//! feed-forward block side by side, where the config says so.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, AttentionSpec, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "StableLmForCausalLM",
    model_type: "stablelm",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"partial_rotary_factor": 0.25, "num_key_value_heads": 32});
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 0)?;
    let epsilon = epsilon(config, "layer_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let bias = config.flag("use_qkv_bias", false)?;
    let head_norms = config.flag("qk_layernorm", false)?;
    let parallel = config.flag("use_parallel_residual", false)?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let head_norm = |part: &str, heads| {
            head_norms.then(|| NormSpec {
                pieces: Some(heads),
                width: sizes.head_dim,
                ..NormSpec::layer(path(part), heads * sizes.head_dim, epsilon, false)
            })
        };
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let attention = AttentionSpec {
            query_norm: head_norm("self_attn.q_layernorm.norms", sizes.heads),
            key_norm: head_norm("self_attn.k_layernorm.norms", sizes.kv_heads),
            ..sizes.attention(&path("self_attn"), names, bias, false)
        };
        let names = ["gate_proj", "up_proj", "down_proj"];
        let feed_forward = sizes.gated(&path("mlp"), names, false, activation);
        let first = norm(path("input_layernorm"));
        Ok(match parallel {
            true => LayerSpec::parallel([
                BranchSpec::new(first.clone(), attention.into()),
                BranchSpec::new(first, feed_forward.into()),
            ]),
            false => LayerSpec::sequential([
                BranchSpec::new(first, attention.into()),
                BranchSpec::new(norm(path("post_attention_layernorm")), feed_forward.into()),
            ]),
        })
    };
    let head = sizes.head(config, "lm_head", false)?;
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(
            FAMILY.architecture,
            "model.embed_tokens",
            layer,
            norm("model.norm".to_owned()),
            head,
        )?
    })
}
