//! Jais2ForCausalLM: layer norms, a feed-forward block without a gate, biases everywhere.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Jais2ForCausalLM",
    model_type: "jais2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"attention_bias": true, "mlp_bias": true});
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 0)?;
    let epsilon = epsilon(config, "layer_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "relu2")?;
    let (attention_bias, bias) = (config.flag("attention_bias", true)?, config.flag("mlp_bias", true)?);
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let attention = sizes.attention(&path("self_attn"), names, attention_bias, attention_bias);
        let feed_forward = sizes.plain(&path("mlp"), ["up_proj", "down_proj"], bias, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("input_layernorm")), attention.into()),
            BranchSpec::new(norm(path("post_attention_layernorm")), feed_forward.into()),
        ]))
    };
    let head = sizes.head(config, "lm_head", false)?;
    let final_norm = norm("model.norm".to_owned());
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}
