//! Mamba2ForCausalLM: layers of Mamba 2 and nothing else.

use serde_json::json;

use super::Family;
use super::mamba2::{Factors, Keys, Mamba2};
use super::parts::{Sizes, epsilon};
use crate::config::Config;
use crate::{Architecture, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Mamba2ForCausalLM",
    model_type: "mamba2",
    translate,
};

/// A state has no end; the cache asks for one.
const CONTEXT: usize = 1 << 17;

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_heads": 128, "head_dim": 64, "state_size": 128, "n_groups": 8});
    let config = config.with_defaults(&defaults);
    let hidden = config.count("hidden_size")?;
    let heads = config.count("num_heads")?;
    let sizes = Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: hidden,
        heads,
        kv_heads: heads,
        head_dim: config.count("head_dim")?,
        layers: config.layers("num_hidden_layers")?,
        context: CONTEXT,
    };
    let mamba = Mamba2::read_keys(config, hidden, None, &Keys::SHORT)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let layer = |index: usize| {
        let path = |part: &str| format!("backbone.layers.{index}.{part}");
        let gated_norm = mamba.norm(&path("mixer"), epsilon);
        let mixer = mamba.layer(&path("mixer"), Factors::ONE, Some(gated_norm), mamba.input_bias);
        let norm = NormSpec::rms(path("norm"), hidden, epsilon);
        Ok(LayerSpec::sequential([BranchSpec::new(norm, mixer.into())]))
    };
    let final_norm = NormSpec::rms("backbone.norm_f", hidden, epsilon);
    let head = sizes.head(config, "lm_head", false)?;
    sizes.decoder(FAMILY.architecture, "backbone.embeddings", layer, final_norm, head)
}
