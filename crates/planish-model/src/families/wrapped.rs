//! Checkpoints that hold a decoder and encoders of images: `text_config` is the decoder's config.json, and its weights have
//! names of their own. Only the decoder runs; tensors of the encoders are not read.

use super::{Family, gemma3, ministral3, mistral};
use crate::config::Config;
use crate::{Architecture, Error, HeadSpec, PrefixAlias};

pub(super) const GEMMA3_FAMILY: Family = Family {
    architecture: "Gemma3ForConditionalGeneration",
    model_type: "gemma3",
    translate: |config| text_part(config, GEMMA3_FAMILY, &[gemma3::FAMILY]),
};

pub(super) const MISTRAL3_FAMILY: Family = Family {
    architecture: "Mistral3ForConditionalGeneration",
    model_type: "mistral3",
    translate: |config| text_part(config, MISTRAL3_FAMILY, &[mistral::FAMILY, ministral3::FAMILY]),
};

/// Translates `text_config` by the decoder's family, the first of `decoders` where it does not say which.
fn text_part(config: Config<'_>, family: Family, decoders: &[Family]) -> Result<Architecture, Error> {
    let text = config
        .object("text_config")?
        .ok_or_else(|| config.error("text_config", "an object"))?;
    let decoder = match text.optional_text("model_type")? {
        None => decoders.first(),
        Some(found) => decoders.iter().find(|decoder| decoder.model_type == found),
    };
    let known: Vec<&str> = decoders.iter().map(|decoder| decoder.model_type).collect();
    let decoder = decoder.ok_or_else(|| text.error("model_type", &known.join(" or ")))?;
    let mut architecture = (decoder.translate)(text)?;
    architecture.name = family.architecture.to_owned();
    let tied = config.flag("tie_word_embeddings", true)?;
    architecture.head = match architecture.head {
        HeadSpec::Tied(layer) | HeadSpec::Separate(layer) if tied => HeadSpec::Tied(layer),
        HeadSpec::Tied(layer) | HeadSpec::Separate(layer) => HeadSpec::Separate(layer),
    };
    architecture.prefix_aliases = vec![
        PrefixAlias::new("model.", "language_model.model."),
        PrefixAlias::new("model.", "model.language_model."),
        PrefixAlias::new("lm_head.", "language_model.lm_head."),
    ];
    Ok(architecture)
}
