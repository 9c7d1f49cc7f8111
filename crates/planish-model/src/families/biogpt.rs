//! BioGptForCausalLM and XGLMForCausalLM: OPT's layers with scaled embeddings; XGLM's positions are sines and cosines.

use super::Family;
use super::parts::{Sizes, activation, linear, only};
use crate::config::Config;
use crate::{
    Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, FeedForwardSpec, LayerSpec, NormSpec, PositionTable,
};

pub(super) const FAMILY: Family = Family {
    architecture: "BioGptForCausalLM",
    model_type: "biogpt",
    translate: |config| {
        let keys = [
            "hidden_size",
            "num_attention_heads",
            "intermediate_size",
            "num_hidden_layers",
        ];
        let sizes = read_sizes(config, keys, "max_position_embeddings")?;
        decoder(
            config,
            FAMILY.architecture,
            &sizes,
            Names {
                module: "biogpt",
                head: "output_projection",
                activation: "hidden_act",
                sinusoids: None,
            },
        )
    },
};

pub(super) const XGLM_FAMILY: Family = Family {
    architecture: "XGLMForCausalLM",
    model_type: "xglm",
    translate: |config| {
        only(config, "add_cross_attention", false)?;
        let keys = ["d_model", "attention_heads", "ffn_dim", "num_layers"];
        let sizes = read_sizes(config, keys, "max_position_embeddings")?;
        if !sizes.hidden.is_multiple_of(2) || sizes.hidden < 4 {
            return Err(config.error("d_model", "an even number"));
        }
        decoder(
            config,
            XGLM_FAMILY.architecture,
            &sizes,
            Names {
                module: "model",
                head: "lm_head",
                activation: "activation_function",
                sinusoids: Some(sizes.hidden / 2 - 1),
            },
        )
    },
};

/// Row of position 0.
const OFFSET: usize = 2;

/// In what they differ.
struct Names {
    module: &'static str,
    head: &'static str,
    activation: &'static str,
    sinusoids: Option<usize>,
}

fn decoder(config: Config<'_>, name: &str, sizes: &Sizes, names: Names) -> Result<Architecture, Error> {
    let module = names.module;
    let activation = activation(config, names.activation, "gelu")?;
    // The class reads no epsilon.
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, 1e-5, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("{module}.layers.{index}.{part}");
        let projections = ["q_proj", "k_proj", "v_proj", "out_proj"];
        let attention = AttentionSpec {
            rope: None,
            ..sizes.attention(&path("self_attn"), projections, true, true)
        };
        let feed_forward = FeedForwardSpec::Plain {
            up: linear(path("fc1"), sizes.intermediate, sizes.hidden, true),
            down: linear(path("fc2"), sizes.hidden, sizes.intermediate, true),
            activation: activation.into(),
        };
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("self_attn_layer_norm")), attention.into()),
            BranchSpec::new(norm(path("final_layer_norm")), feed_forward.into()),
        ]))
    };
    let table = format!("{module}.embed_tokens");
    let head = sizes.head(config, names.head, true)?;
    let scaled = config.flag("scale_embedding", true)?;
    Ok(Architecture {
        embedding: EmbeddingSpec {
            scale: if scaled {
                (sizes.hidden as f64).sqrt() as f32
            } else {
                1.0
            },
            positions: Some(PositionTable {
                name: format!("{module}.embed_positions"),
                rows: sizes.context + OFFSET,
                offset: OFFSET,
                sinusoids: names.sinusoids,
            }),
            ..EmbeddingSpec::new(&table)
        },
        ..sizes.decoder(name, &table, layer, norm(format!("{module}.layer_norm")), head)?
    })
}

/// Sizes by the keys of the hidden size, heads, intermediate size and layers, and of the context.
pub(super) fn read_sizes(config: Config<'_>, keys: [&str; 4], context: &str) -> Result<Sizes, Error> {
    let (hidden, heads) = (config.count(keys[0])?, config.count(keys[1])?);
    if !hidden.is_multiple_of(heads) {
        return Err(config.error(keys[1], &format!("a divisor of {}", keys[0])));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: config.count(keys[2])?,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        layers: config.layers(keys[3])?,
        context: config.count(context)?,
    })
}
