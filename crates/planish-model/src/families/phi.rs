//! PhiForCausalLM (Phi 1 to 2): attention and a plain feed-forward block side by side behind one layer norm, biases
//! everywhere, also on the head.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon, linear, only};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, AttentionSpec, BranchSpec, Error, HeadSpec, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "PhiForCausalLM",
    model_type: "phi",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"partial_rotary_factor": 0.5});
    let config = config.with_defaults(&defaults);
    // A tied head would still have a bias of its own.
    only(config, "tie_word_embeddings", false)?;
    let sizes = Sizes::read(config, 0)?;
    let epsilon = epsilon(config, "layer_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "gelu_new")?;
    let head_norms = config.flag("qk_layernorm", false)?;
    let norm = |name: String, size| NormSpec::layer(name, size, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let head_norm = |part: &str| head_norms.then(|| norm(path(part), sizes.head_dim));
        let names = ["q_proj", "k_proj", "v_proj", "dense"];
        let attention = AttentionSpec {
            query_norm: head_norm("self_attn.q_layernorm"),
            key_norm: head_norm("self_attn.k_layernorm"),
            ..sizes.attention(&path("self_attn"), names, true, true)
        };
        let feed_forward = sizes.plain(&path("mlp"), ["fc1", "fc2"], true, activation);
        let norm = norm(path("input_layernorm"), sizes.hidden);
        Ok(LayerSpec::parallel([
            BranchSpec::new(norm.clone(), attention.into()),
            BranchSpec::new(norm, feed_forward.into()),
        ]))
    };
    let final_norm = norm("model.final_layernorm".to_owned(), sizes.hidden);
    let head = HeadSpec::Separate(linear("lm_head".to_owned(), sizes.vocabulary, sizes.hidden, true));
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}
