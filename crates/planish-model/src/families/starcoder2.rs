//! Starcoder2ForCausalLM: layer norms, a plain feed-forward block, biases everywhere, a window in every layer.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, AttentionSpec, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Starcoder2ForCausalLM",
    model_type: "starcoder2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_key_value_heads": 2});
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 0)?;
    let epsilon = epsilon(config, "norm_epsilon", 1e-5)?;
    let activation = activation(config, "hidden_act", "gelu_pytorch_tanh")?;
    let bias = config.flag("use_bias", true)?;
    let window = config.optional_count("sliding_window")?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let attention = AttentionSpec {
            window,
            ..sizes.attention(&path("self_attn"), names, bias, bias)
        };
        let feed_forward = sizes.plain(&path("mlp"), ["c_fc", "c_proj"], bias, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("input_layernorm")), attention.into()),
            BranchSpec::new(norm(path("post_attention_layernorm")), feed_forward.into()),
        ]))
    };
    let head = sizes.head(config, "lm_head", true)?;
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
