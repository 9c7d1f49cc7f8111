//! BloomForCausalLM: linear biases of positions in place of an encoding, a norm of the embeddings, layer norms and biases.

use planish_ops::{Activation, AlibiRule};

use super::Family;
use super::falcon::slopes;
use super::parts::{Sizes, epsilon, linear, only};
use crate::config::Config;
use crate::{
    AlibiSpec, Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, LayerSpec, NormSpec, PrefixAlias,
};

pub(super) const FAMILY: Family = Family {
    architecture: "BloomForCausalLM",
    model_type: "bloom",
    translate,
};

/// Biases of positions have no end; the cache asks for one.
const CONTEXT: usize = 2048;

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    only(config, "apply_residual_connection_post_layernorm", false)?;
    only(config, "slow_but_exact", false)?;
    let sizes = read_sizes(config)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let alibi = AlibiSpec {
        slopes: slopes(sizes.heads).collect(),
        rule: AlibiRule {
            factor: 1.0,
            rounded: false,
        },
    };
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.h.{index}.{part}");
        let fused = linear(
            path("self_attention.query_key_value"),
            sizes.fused_rows(),
            sizes.hidden,
            true,
        );
        let output = linear(path("self_attention.dense"), sizes.hidden, sizes.hidden, true);
        let attention = AttentionSpec {
            rope: None,
            alibi: Some(alibi.clone()),
            ..sizes.attention_of(sizes.split_groups(&fused), output)
        };
        let names = ["dense_h_to_4h", "dense_4h_to_h"];
        let feed_forward = sizes.plain(&path("mlp"), names, true, Activation::GeluTanh);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("input_layernorm")), attention.into()),
            BranchSpec::new(norm(path("post_attention_layernorm")), feed_forward.into()),
        ]))
    };
    let head = sizes.head(config, "lm_head", true)?;
    let table = "transformer.word_embeddings";
    let final_norm = norm("transformer.ln_f".to_owned());
    Ok(Architecture {
        embedding: EmbeddingSpec {
            norm: Some(norm(format!("{table}_layernorm"))),
            ..EmbeddingSpec::new(table)
        },
        // The first checkpoints, without the name of the part that they hold.
        prefix_aliases: vec![PrefixAlias::new("transformer.", "")],
        ..sizes.decoder(FAMILY.architecture, table, layer, final_norm, head)?
    })
}

/// The first checkpoints have names of their own for some keys.
fn read_sizes(config: Config<'_>) -> Result<Sizes, Error> {
    let either = |key: &'static str, other: &'static str| match config.value(other) {
        Some(_) => other,
        None => key,
    };
    let hidden = config.count(either("hidden_size", "n_embed"))?;
    let heads_key = either("n_head", "num_attention_heads");
    let heads = config.count(heads_key)?;
    if !hidden.is_multiple_of(heads) {
        return Err(config.error(heads_key, "a divisor of hidden_size"));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: 4 * hidden,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        layers: config.layers(either("n_layer", "num_hidden_layers"))?,
        context: config.optional_count("seq_length")?.unwrap_or(CONTEXT),
    })
}
