//! GPT2LMHeadModel: learned positions, layer norms, query, key and value in one layer, weights stored as (cols, rows).

use super::Family;
use super::parts::{Sizes, activation, epsilon, only};
use crate::config::Config;
use crate::{
    Activation, Architecture, AttentionSpec, BlockSpec, BranchSpec, EmbeddingSpec, Error, FeedForwardSpec, LayerSpec,
    LinearSpec, NormSpec, PositionTable, PrefixAlias,
};

pub(super) const FAMILY: Family = Family {
    architecture: "GPT2LMHeadModel",
    model_type: "gpt2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    only(config, "add_cross_attention", false)?;
    let sizes = read_sizes(config)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let activation = activation(config, "activation_function", "gelu_new")?;
    let scaled = config.flag("scale_attn_weights", true)?;
    let scaled_by_layer = config.flag("scale_attn_by_inverse_layer_idx", false)?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let mut layer = gpt2_layer(&sizes, index, activation, norm);
        if let BlockSpec::Attention(attention) = &mut layer.steps[0].branches[0].block {
            if !scaled {
                attention.scale = 1.0;
            }
            if scaled_by_layer {
                attention.scale /= (index + 1) as f32;
            }
        }
        Ok(layer)
    };
    let final_norm = norm("transformer.ln_f".to_owned());
    let head = sizes.head(config, "lm_head", true)?;
    let decoder = sizes.decoder(FAMILY.architecture, "transformer.wte", layer, final_norm, head)?;
    Ok(Architecture {
        embedding: EmbeddingSpec {
            positions: Some(positions(&sizes)),
            ..decoder.embedding
        },
        // The first checkpoints, without the name of the part that they hold.
        prefix_aliases: vec![PrefixAlias::new("transformer.", "")],
        ..decoder
    })
}

/// A layer of the first and the second GPT.
pub(super) fn gpt2_layer(
    sizes: &Sizes,
    index: usize,
    activation: Activation,
    norm: impl Fn(String) -> NormSpec,
) -> LayerSpec {
    let path = |part: &str| format!("transformer.h.{index}.{part}");
    let linear = |part: &str, rows, cols| LinearSpec {
        transposed: true,
        bias: true,
        ..LinearSpec::new(path(part), rows, cols)
    };
    let fused = linear("attn.c_attn", sizes.fused_rows(), sizes.hidden);
    let attention = AttentionSpec {
        rope: None,
        ..sizes.attention_of(sizes.split(&fused), linear("attn.c_proj", sizes.hidden, sizes.hidden))
    };
    let feed_forward = FeedForwardSpec::Plain {
        up: linear("mlp.c_fc", sizes.intermediate, sizes.hidden),
        down: linear("mlp.c_proj", sizes.hidden, sizes.intermediate),
        activation: activation.into(),
    };
    LayerSpec::sequential([
        BranchSpec::new(norm(path("ln_1")), attention.into()),
        BranchSpec::new(norm(path("ln_2")), feed_forward.into()),
    ])
}

/// A learned vector for every position.
pub(super) fn positions(sizes: &Sizes) -> PositionTable {
    PositionTable {
        name: "transformer.wpe".to_owned(),
        rows: sizes.context,
        offset: 0,
        sinusoids: None,
    }
}

/// GPT-2 has names of its own for most keys.
pub(super) fn read_sizes(config: Config<'_>) -> Result<Sizes, Error> {
    let (hidden, heads) = (config.count("n_embd")?, config.count("n_head")?);
    if !hidden.is_multiple_of(heads) {
        return Err(config.error("n_head", "a divisor of n_embd"));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: config.optional_count("n_inner")?.unwrap_or(4 * hidden),
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        layers: config.layers("n_layer")?,
        context: config.count("n_positions")?,
    })
}
