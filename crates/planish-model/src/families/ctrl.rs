//! CTRLLMHeadModel: layer norms before plain blocks with ReLU, scaled embeddings, positions of sines and cosines, a head with a bias.

use super::Family;
use super::biogpt::read_sizes;
use super::parts::{epsilon, linear};
use crate::config::Config;
use crate::{
    Activation, Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, FeedForwardSpec, HeadSpec, LayerSpec,
    LinearSpec, NormSpec, PositionTable,
};

pub(super) const FAMILY: Family = Family {
    architecture: "CTRLLMHeadModel",
    model_type: "ctrl",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let sizes = read_sizes(config, ["n_embd", "n_head", "dff", "n_layer"], "n_positions")?;
    if !sizes.hidden.is_multiple_of(2) {
        return Err(config.error("n_embd", "an even number"));
    }
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-6)?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.h.{index}.{part}");
        let projection = |name: &str| {
            linear(
                path(&format!("multi_head_attention.{name}")),
                sizes.hidden,
                sizes.hidden,
                true,
            )
        };
        let attention = AttentionSpec {
            rope: None,
            ..sizes.attention_of(["Wq", "Wk", "Wv"].map(projection), projection("dense"))
        };
        let feed_forward = FeedForwardSpec::Plain {
            up: linear(path("ffn.0"), sizes.intermediate, sizes.hidden, true),
            down: linear(path("ffn.2"), sizes.hidden, sizes.intermediate, true),
            activation: Activation::Relu.into(),
        };
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("layernorm1")), attention.into()),
            BranchSpec::new(norm(path("layernorm2")), feed_forward.into()),
        ]))
    };
    let table = LinearSpec {
        bias_name: Some("lm_head.bias".to_owned()),
        ..linear("transformer.w".to_owned(), sizes.vocabulary, sizes.hidden, true)
    };
    // The token table is the head, with a bias of its own.
    let head = match sizes.head(config, "lm_head", true)? {
        HeadSpec::Tied(_) => HeadSpec::Separate(table),
        HeadSpec::Separate(layer) => HeadSpec::Separate(layer.with_bias(true)),
    };
    let final_norm = norm("transformer.layernorm".to_owned());
    Ok(Architecture {
        embedding: EmbeddingSpec {
            scale: (sizes.hidden as f64).sqrt() as f32,
            positions: Some(PositionTable {
                name: "transformer.pos_encoding".to_owned(),
                rows: sizes.context,
                offset: 0,
                sinusoids: Some(sizes.hidden / 2),
            }),
            ..EmbeddingSpec::new("transformer.w")
        },
        ..sizes.decoder(FAMILY.architecture, "transformer.w", layer, final_norm, head)?
    })
}
