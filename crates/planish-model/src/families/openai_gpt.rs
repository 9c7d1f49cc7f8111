//! OpenAIGPTLMHeadModel (the first GPT): GPT-2 with norms of the sums instead of norms before the blocks.

use super::Family;
use super::gpt2::{gpt2_layer, read_sizes};
use super::opt::norms_last;
use super::parts::epsilon;
use crate::config::Config;
use crate::{Activation, Architecture, EmbeddingSpec, Error, NormSpec, PositionTable, PrefixAlias};

pub(super) const FAMILY: Family = Family {
    architecture: "OpenAIGPTLMHeadModel",
    model_type: "openai-gpt",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let sizes = read_sizes(config)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let activation = match config.optional_text("afn")?.unwrap_or("gelu") {
        "gelu" => Activation::GeluTanh,
        "silu" | "swish" => Activation::Silu,
        "relu" => Activation::Relu,
        _ => return Err(config.error("afn", "one of gelu, silu, swish, relu")),
    };
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| Ok(norms_last(gpt2_layer(&sizes, index, activation, norm)));
    let head = sizes.head(config, "lm_head", true)?;
    let last = norm(String::new());
    let mut decoder = sizes.decoder(FAMILY.architecture, "transformer.tokens_embed", layer, last, head)?;
    let last = decoder.layers.last_mut().and_then(|layer| layer.steps.last_mut());
    decoder.final_norm = last.and_then(|step| step.norm.take()).unwrap_or(decoder.final_norm);
    Ok(Architecture {
        embedding: EmbeddingSpec {
            positions: Some(PositionTable {
                name: "transformer.positions_embed".to_owned(),
                rows: sizes.context,
                offset: 0,
                sinusoids: None,
            }),
            ..decoder.embedding
        },
        prefix_aliases: vec![PrefixAlias::new("transformer.", "")],
        ..decoder
    })
}
