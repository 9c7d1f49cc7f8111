//! MptForCausalLM: linear biases of positions in place of an encoding, layer norms without biases, query, key and value in one layer.

use planish_ops::{Activation, AlibiRule};
use serde_json::json;

use super::Family;
use super::parts::{Sizes, epsilon, linear, only};
use crate::config::Config;
use crate::{AlibiSpec, Architecture, AttentionSpec, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "MptForCausalLM",
    model_type: "mpt",
    translate,
};

/// The class reads no other, whatever the config says.
const LARGEST_EXPONENT: f64 = 8.0;

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"max_seq_len": 2048, "expansion_ratio": 4, "attn_config": {}});
    let config = config.with_defaults(&defaults);
    only(config, "no_bias", true)?;
    if config.count("expansion_ratio")? != 4 {
        return Err(config.error("expansion_ratio", "4"));
    }
    let attention_config = config.object("attn_config")?.unwrap_or(config);
    for (key, known) in [("alibi", true), ("qk_ln", false), ("prefix_lm", false)] {
        only(attention_config, key, known)?;
    }
    if attention_config
        .optional_number("alibi_bias_max")?
        .unwrap_or(LARGEST_EXPONENT)
        != LARGEST_EXPONENT
    {
        return Err(attention_config.error("alibi_bias_max", "8"));
    }
    let scale = attention_config.optional_number("softmax_scale")?;
    let clip = read_clip(attention_config)?;
    let sizes = read_sizes(config)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let alibi = AlibiSpec {
        slopes: slopes(sizes.heads),
        rule: AlibiRule {
            factor: 1.0,
            rounded: false,
        },
    };
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, false);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.blocks.{index}.{part}");
        let fused = linear(path("attn.Wqkv"), sizes.fused_rows(), sizes.hidden, false);
        let output = linear(path("attn.out_proj"), sizes.hidden, sizes.hidden, false);
        let attention = sizes.attention_of(sizes.split(&fused), output);
        let attention = AttentionSpec {
            rope: None,
            alibi: Some(alibi.clone()),
            scale: scale.map_or(attention.scale, |scale| scale as f32),
            clip,
            ..attention
        };
        let feed_forward = sizes.plain(&path("ffn"), ["up_proj", "down_proj"], false, Activation::Gelu);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("norm_1")), attention.into()),
            BranchSpec::new(norm(path("norm_2")), feed_forward.into()),
        ]))
    };
    let head = sizes.head(config, "lm_head", true)?;
    let final_norm = norm("transformer.norm_f".to_owned());
    sizes.decoder(FAMILY.architecture, "transformer.wte", layer, final_norm, head)
}

/// `clip_qkv`, which does nothing where it is 0.
pub(super) fn read_clip(config: Config<'_>) -> Result<Option<f32>, Error> {
    match config.optional_number("clip_qkv")? {
        Some(clip) if clip < 0.0 => Err(config.error("clip_qkv", "a number of at least 0")),
        clip => Ok(clip.filter(|&clip| clip != 0.0).map(|clip| clip as f32)),
    }
}

/// `2^(-8 i / n)` for the power of two n at or above the number of heads; of more than there are heads, every second first.
fn slopes(heads: usize) -> Vec<f32> {
    let above = heads.next_power_of_two();
    let slope = |index: usize| (-((index + 1) as f64) * LARGEST_EXPONENT / above as f64).exp2() as f32;
    match above == heads {
        true => (0..heads).map(slope).collect(),
        false => (1..above)
            .step_by(2)
            .chain((0..above).step_by(2))
            .take(heads)
            .map(slope)
            .collect(),
    }
}

fn read_sizes(config: Config<'_>) -> Result<Sizes, Error> {
    let (hidden, heads) = (config.count("d_model")?, config.count("n_heads")?);
    if !hidden.is_multiple_of(heads) {
        return Err(config.error("n_heads", "a divisor of d_model"));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: 4 * hidden,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        layers: config.layers("n_layers")?,
        context: config.count("max_seq_len")?,
    })
}
