//! GPTBigCodeForCausalLM (StarCoder, SantaCoder): GPT-2 with one key head.

use super::Family;
use super::gpt2::{positions, read_sizes};
use super::parts::{Sizes, activation, epsilon, linear, only};
use crate::config::Config;
use crate::{Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "GPTBigCodeForCausalLM",
    model_type: "gpt_bigcode",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    only(config, "add_cross_attention", false)?;
    let one_key = config.flag("multi_query", true)?;
    let sizes = read_sizes(config)?;
    let sizes = Sizes {
        kv_heads: if one_key { 1 } else { sizes.heads },
        ..sizes
    };
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let activation = activation(config, "activation_function", "gelu_pytorch_tanh")?;
    let scaled = config.flag("scale_attn_weights", true)?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.h.{index}.{part}");
        let fused = linear(path("attn.c_attn"), sizes.fused_rows(), sizes.hidden, true);
        let inputs = match one_key {
            true => sizes.split(&fused),
            false => sizes.split_groups(&fused),
        };
        let output = linear(path("attn.c_proj"), sizes.hidden, sizes.hidden, true);
        let attention = sizes.attention_of(inputs, output);
        let attention = AttentionSpec {
            rope: None,
            scale: if scaled { attention.scale } else { 1.0 },
            ..attention
        };
        let feed_forward = sizes.plain(&path("mlp"), ["c_fc", "c_proj"], true, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("ln_1")), attention.into()),
            BranchSpec::new(norm(path("ln_2")), feed_forward.into()),
        ]))
    };
    let final_norm = norm("transformer.ln_f".to_owned());
    let head = sizes.head(config, "lm_head", true)?;
    let decoder = sizes.decoder(FAMILY.architecture, "transformer.wte", layer, final_norm, head)?;
    Ok(Architecture {
        embedding: EmbeddingSpec {
            positions: Some(positions(&sizes)),
            ..decoder.embedding
        },
        ..decoder
    })
}
