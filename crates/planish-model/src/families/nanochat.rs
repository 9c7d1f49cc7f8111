//! NanoChatForCausalLM: norms without weights, of the embeddings too, rotation by negative angles before the norms of heads, a plain
//! feed-forward block with squared ReLU.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::gemma2::logits;
use super::parts::{Sizes, activation};
use crate::config::Config;
use crate::{Architecture, Error, LayerSpec, LinearSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "NanoChatForCausalLM",
    model_type: "nanochat",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"final_logit_softcapping": 15.0, "hidden_act": "relu2"});
    let config = config.with_defaults(&defaults);
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let activation = activation(config, "hidden_act", "relu2")?;
    let mut architecture = adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        let attention = &mut layer.attention;
        attention.norm_after_rope = true;
        attention.query = halves_exchanged(&attention.query, sizes.heads, sizes);
        attention.key = halves_exchanged(&attention.key, sizes.kv_heads, sizes);
        [&mut attention.query_norm, &mut attention.key_norm]
            .into_iter()
            .flatten()
            .for_each(|norm| norm.weight = false);
        let path = format!("model.layers.{index}.mlp");
        layer.feed_forward = sizes.plain(&path, ["fc1", "fc2"], false, activation).into();
        Ok(())
    })?;
    let branches = architecture.layers.iter_mut().flat_map(LayerSpec::branches_mut);
    let norms = branches.filter_map(|branch| branch.norm.as_mut());
    norms
        .chain([&mut architecture.final_norm])
        .for_each(|norm| norm.weight = false);
    architecture.embedding.norm = Some(NormSpec {
        name: "norm".to_owned(),
        ..architecture.final_norm.clone()
    });
    architecture.logits = logits(config)?;
    Ok(architecture)
}

/// The second half of each head before the first: so rotated, it is turned the other way.
fn halves_exchanged(layer: &LinearSpec, heads: usize, sizes: &Sizes) -> LinearSpec {
    let half = sizes.head_dim / 2;
    let starts = (0..heads).flat_map(|head| [head * sizes.head_dim + half, head * sizes.head_dim]);
    layer.cut(starts.map(|start| start..start + half).collect())
}
