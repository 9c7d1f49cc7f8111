//! GPTNeoXJapaneseForCausalLM: GPT-NeoX without biases, but for one behind the last layer's attention.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, activation, epsilon, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, BranchSpec, Error, LayerSpec, LinearSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "GPTNeoXJapaneseForCausalLM",
    model_type: "gpt_neox_japanese",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let hidden = config.count("hidden_size")?;
    let multiple = config.optional_number("intermediate_multiple_size")?.unwrap_or(4.0);
    if !(multiple > 0.0 && multiple <= 1024.0) {
        return Err(config.error("intermediate_multiple_size", "a factor that leaves a size"));
    }
    let sizes = Sizes::with_intermediate(config, 0, (hidden as f64 * multiple) as usize)?;
    let sizes = Sizes {
        kv_heads: sizes.heads,
        ..sizes
    };
    let rope_defaults = json!({
        "rope_theta": config.optional_number("rotary_emb_base")?.unwrap_or(10_000.0),
        "partial_rotary_factor": config.optional_number("rotary_pct")?.unwrap_or(1.0),
    });
    let epsilon = epsilon(config, "layer_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "gelu")?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("gpt_neox_japanese.layers.{index}.{part}");
        let fused = linear(
            path("attention.query_key_value"),
            sizes.fused_rows(),
            sizes.hidden,
            false,
        );
        let output = LinearSpec {
            bias_name: (index + 1 == sizes.layers).then(|| path("attention.dense_bias")),
            ..linear(
                path("attention.dense"),
                sizes.hidden,
                sizes.hidden,
                index + 1 == sizes.layers,
            )
        };
        let attention = sizes.attention_of(sizes.split_groups(&fused), output);
        let feed_forward = sizes.plain(&path("mlp"), ["dense_h_to_4h", "dense_4h_to_h"], false, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("input_layernorm")), attention.into()),
            BranchSpec::new(norm(path("post_attention_layernorm")), feed_forward.into()),
        ]))
    };
    let final_norm = norm("gpt_neox_japanese.final_layer_norm".to_owned());
    let head = sizes.head(config, "embed_out", true)?;
    Ok(Architecture {
        ropes: vec![read_rope(config.with_defaults(&rope_defaults), sizes.head_dim)?],
        ..sizes.decoder(
            FAMILY.architecture,
            "gpt_neox_japanese.embed_in",
            layer,
            final_norm,
            head,
        )?
    })
}
