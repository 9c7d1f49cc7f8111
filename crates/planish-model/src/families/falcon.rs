//! FalconForCausalLM: query, key and value in one layer, grouped by key head; rotation or linear biases of positions; one, two
//! or shared layer norms; attention and feed-forward block side by side or one after the other.

use planish_ops::AlibiRule;

use super::Family;
use super::parts::{Sizes, activation, epsilon, linear, only};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{AlibiSpec, Architecture, AttentionSpec, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "FalconForCausalLM",
    model_type: "falcon",
    translate,
};

/// Where the layer norms of a layer stand.
#[derive(Clone, Copy)]
enum Norms {
    /// One before both blocks.
    Shared,
    /// One before each, side by side.
    Two,
    /// One before each, one after the other.
    Sequential,
}

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    only(config, "apply_residual_connection_post_layernorm", false)?;
    let grouped = config.flag("new_decoder_architecture", false)?;
    let sizes = read_sizes(config, grouped)?;
    let norms = read_norms(config, grouped)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let activation = activation(config, "activation", "gelu")?;
    let bias = config.flag("bias", false)?;
    let alibi = config.flag("alibi", false)?.then(|| AlibiSpec {
        slopes: slopes(sizes.heads)
            .map(|slope| half::bf16::from_f32(slope).to_f32())
            .collect(),
        rule: AlibiRule {
            factor: (sizes.head_dim as f32).powf(-0.5),
            rounded: true,
        },
    });
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.h.{index}.{part}");
        let fused = linear(
            path("self_attention.query_key_value"),
            sizes.fused_rows(),
            sizes.hidden,
            bias,
        );
        let output = linear(path("self_attention.dense"), sizes.hidden, sizes.hidden, bias);
        let attention = AttentionSpec {
            rope: alibi.is_none().then_some(0),
            alibi: alibi.clone(),
            ..sizes.attention_of(sizes.split_groups(&fused), output)
        };
        let feed_forward = sizes.plain(&path("mlp"), ["dense_h_to_4h", "dense_4h_to_h"], bias, activation);
        let names = match norms {
            Norms::Shared => ["input_layernorm", "input_layernorm"],
            Norms::Two => ["ln_attn", "ln_mlp"],
            Norms::Sequential => ["input_layernorm", "post_attention_layernorm"],
        };
        let [attention_norm, feed_forward_norm] = names.map(|name| norm(path(name)));
        let branches = [
            BranchSpec::new(attention_norm, attention.into()),
            BranchSpec::new(feed_forward_norm, feed_forward.into()),
        ];
        Ok(match norms {
            Norms::Sequential => LayerSpec::sequential(branches),
            _ => LayerSpec::parallel(branches),
        })
    };
    let final_norm = norm("transformer.ln_f".to_owned());
    let head = sizes.head(config, "lm_head", true)?;
    let ropes = match alibi {
        Some(_) => Vec::new(),
        None => vec![read_rope(config, sizes.head_dim)?],
    };
    Ok(Architecture {
        ropes,
        ..sizes.decoder(
            FAMILY.architecture,
            "transformer.word_embeddings",
            layer,
            final_norm,
            head,
        )?
    })
}

fn read_norms(config: Config<'_>, grouped: bool) -> Result<Norms, Error> {
    let parallel = config.flag("parallel_attn", true)?;
    let count = config.optional_count("num_ln_in_parallel_attn")?;
    if grouped {
        only(config, "parallel_attn", true)?;
    }
    match (grouped, parallel, count) {
        (true, _, None | Some(2)) => Ok(Norms::Two),
        (true, _, Some(1)) | (false, true, None | Some(1)) => Ok(Norms::Shared),
        (false, false, _) => Ok(Norms::Sequential),
        _ => Err(config.error("num_ln_in_parallel_attn", "1, or 2 with new_decoder_architecture")),
    }
}

/// The usual sizes; how many key heads there are depends on three keys.
fn read_sizes(config: Config<'_>, grouped: bool) -> Result<Sizes, Error> {
    let (hidden, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
    let kv_heads = match (grouped, config.flag("multi_query", true)?) {
        (true, _) => config.optional_count("num_kv_heads")?.unwrap_or(heads),
        (false, true) => 1,
        (false, false) => heads,
    };
    if !heads.is_multiple_of(kv_heads) {
        return Err(config.error("num_kv_heads", "a divisor of num_attention_heads"));
    }
    if !hidden.is_multiple_of(heads) {
        return Err(config.error("num_attention_heads", "a divisor of hidden_size"));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: config.optional_count("ffn_hidden_size")?.unwrap_or(4 * hidden),
        heads,
        kv_heads,
        head_dim: hidden / heads,
        layers: config.layers("num_hidden_layers")?,
        context: config.optional_count("max_position_embeddings")?.unwrap_or(2048),
    })
}

/// Powers of `2^(-8 / n)` for the power of two n at or below the number of heads, then odd powers of its root.
pub(super) fn slopes(heads: usize) -> impl Iterator<Item = f32> {
    let below: i32 = 1 << heads.ilog2();
    let base = move |count: usize| (-8.0 / count as f64).exp2() as f32;
    let first = (1..=below).map(move |power| base(below as usize).powi(power));
    let rest = (0..heads as i32 - below).map(move |index| base(2 * below as usize).powi(2 * index + 1));
    first.chain(rest)
}
