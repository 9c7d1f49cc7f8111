//! OPTForCausalLM: learned positions from row 2 on, layer norms before the blocks or after the sums, and token tables that
//! are narrower than the hidden state.

use super::Family;
use super::parts::{Sizes, activation, linear, only};
use crate::config::Config;
use crate::{
    Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, FactorizedEmbedding, FeedForwardSpec, LayerSpec,
    LinearSpec, NormSpec, PositionTable, PrefixAlias, StepSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "OPTForCausalLM",
    model_type: "opt",
    translate,
};

/// Rows of the position table before that of position 0.
const OFFSET: usize = 2;

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    only(config, "_remove_final_layer_norm", false)?;
    let sizes = read_sizes(config)?;
    let activation = activation(config, "activation_function", "relu")?;
    let norm_first = config.flag("do_layer_norm_before", true)?;
    let bias = config.flag("enable_bias", true)?;
    let affine = config.flag("layer_norm_elementwise_affine", true)?;
    let norm = |name: String| NormSpec {
        weight: affine,
        ..NormSpec::layer(name, sizes.hidden, 1e-5, affine)
    };
    let layer = |index: usize| {
        let path = |part: &str| format!("model.decoder.layers.{index}.{part}");
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
        let attention = AttentionSpec {
            rope: None,
            ..sizes.attention(&path("self_attn"), names, bias, bias)
        };
        let feed_forward = FeedForwardSpec::Plain {
            up: linear(path("fc1"), sizes.intermediate, sizes.hidden, bias),
            down: linear(path("fc2"), sizes.hidden, sizes.intermediate, bias),
            activation: activation.into(),
        };
        let attention = BranchSpec::new(norm(path("self_attn_layer_norm")), attention.into());
        let feed_forward = BranchSpec::new(norm(path("final_layer_norm")), feed_forward.into());
        let layer = LayerSpec::sequential([attention, feed_forward]);
        Ok(if norm_first { layer } else { norms_last(layer) })
    };
    let table_cols = config.optional_count("word_embed_proj_dim")?.unwrap_or(sizes.hidden);
    let mut decoder = sizes.decoder(
        FAMILY.architecture,
        "model.decoder.embed_tokens",
        layer,
        norm("model.decoder.final_layer_norm".to_owned()),
        Sizes {
            hidden: table_cols,
            ..sizes
        }
        .head(config, "lm_head", true)?,
    )?;
    if !norm_first {
        let last = decoder.layers.last_mut().and_then(|layer| layer.steps.last_mut());
        decoder.final_norm = last.and_then(|step| step.norm.take()).unwrap_or(decoder.final_norm);
    }
    let project = |name: &str, rows, cols| LinearSpec::new(format!("model.decoder.{name}"), rows, cols);
    decoder.embedding = EmbeddingSpec {
        factorized: (table_cols != sizes.hidden).then(|| FactorizedEmbedding {
            project_in: project("project_in", sizes.hidden, table_cols),
            project_out: project("project_out", table_cols, sizes.hidden),
        }),
        positions: Some(PositionTable {
            name: "model.decoder.embed_positions".to_owned(),
            rows: sizes.context + OFFSET,
            offset: OFFSET,
            sinusoids: None,
        }),
        ..decoder.embedding
    };
    // The first checkpoints, without the name of the part that they hold.
    decoder.prefix_aliases = vec![PrefixAlias::new("model.decoder.", "decoder.")];
    Ok(decoder)
}

/// The norms of the branches as norms of the sums. The last one of all is then the final norm.
pub(super) fn norms_last(layer: LayerSpec) -> LayerSpec {
    let steps = layer.steps.into_iter().map(|mut step| {
        let norm = step.branches.iter_mut().find_map(|branch| branch.norm.take());
        StepSpec { norm, ..step }
    });
    LayerSpec { steps: steps.collect() }
}

/// The usual sizes; the intermediate one has a name of its own, and all heads are alike.
fn read_sizes(config: Config<'_>) -> Result<Sizes, Error> {
    let (hidden, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
    if !hidden.is_multiple_of(heads) {
        return Err(config.error("num_attention_heads", "a divisor of hidden_size"));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: config.count("ffn_dim")?,
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        layers: config.layers("num_hidden_layers")?,
        context: config.count("max_position_embeddings")?,
    })
}
