//! GPTNeoXForCausalLM (Pythia): layer norms, query, key and value interleaved per head, a quarter of a head rotated,
//! attention and feed-forward block side by side or one after the other.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "GPTNeoXForCausalLM",
    model_type: "gpt_neox",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    // Every head has its keys, whatever the config says.
    let sizes = Sizes::read(config, 0)?;
    let sizes = Sizes {
        kv_heads: sizes.heads,
        ..sizes
    };
    let rope_defaults = json!({
        "rope_theta": config.optional_number("rotary_emb_base")?.unwrap_or(10_000.0),
        "partial_rotary_factor": config.optional_number("rotary_pct")?.unwrap_or(0.25),
    });
    let epsilon = epsilon(config, "layer_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "gelu")?;
    let bias = config.flag("attention_bias", true)?;
    let parallel = config.flag("use_parallel_residual", true)?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("gpt_neox.layers.{index}.{part}");
        let fused = linear(
            path("attention.query_key_value"),
            sizes.fused_rows(),
            sizes.hidden,
            bias,
        );
        let output = linear(path("attention.dense"), sizes.hidden, sizes.hidden, bias);
        let attention = sizes.attention_of(sizes.split_groups(&fused), output);
        let feed_forward = sizes.plain(&path("mlp"), ["dense_h_to_4h", "dense_4h_to_h"], true, activation);
        let branches = [
            BranchSpec::new(norm(path("input_layernorm")), attention.into()),
            BranchSpec::new(norm(path("post_attention_layernorm")), feed_forward.into()),
        ];
        Ok(match parallel {
            true => LayerSpec::parallel(branches),
            false => LayerSpec::sequential(branches),
        })
    };
    let final_norm = norm("gpt_neox.final_layer_norm".to_owned());
    let head = sizes.head(config, "embed_out", false)?;
    Ok(Architecture {
        ropes: vec![read_rope(config.with_defaults(&rope_defaults), sizes.head_dim)?],
        ..sizes.decoder(FAMILY.architecture, "gpt_neox.embed_in", layer, final_norm, head)?
    })
}
