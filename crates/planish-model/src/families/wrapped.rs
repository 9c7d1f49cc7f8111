//! Checkpoints that hold a decoder and encoders of images: `text_config` is the decoder's config.json, and its weights have
//! names of their own. Only the decoder runs; tensors of the encoders are not read.

use super::{
    Family, aria_text, deepseek_v3, gemma3, gemma3n, gemma4, llama4, ministral3, mistral, mistral4, qwen2, qwen3,
    qwen3_5, qwen3_moe,
};
use crate::config::Config;
use crate::{Architecture, Error, HeadSpec, PrefixAlias};

pub(super) const GEMMA3_FAMILY: Family = Family {
    architecture: "Gemma3ForConditionalGeneration",
    model_type: "gemma3",
    translate: |config| Wrapper::new(GEMMA3_FAMILY, &[(gemma3::FAMILY.model_type, gemma3::FAMILY)]).read(config),
};

pub(super) const GEMMA3N_FAMILY: Family = Family {
    architecture: "Gemma3nForConditionalGeneration",
    model_type: "gemma3n",
    translate: |config| Wrapper::new(GEMMA3N_FAMILY, &[(gemma3n::FAMILY.model_type, gemma3n::FAMILY)]).read(config),
};

pub(super) const GEMMA4_FAMILY: Family = Family {
    architecture: "Gemma4ForConditionalGeneration",
    model_type: "gemma4",
    translate: |config| Wrapper::new(GEMMA4_FAMILY, &[(gemma4::FAMILY.model_type, gemma4::FAMILY)]).read(config),
};

pub(super) const GEMMA4_UNIFIED_FAMILY: Family = Family {
    architecture: "Gemma4UnifiedForConditionalGeneration",
    model_type: "gemma4_unified",
    translate: |config| {
        let decoder = gemma4::UNIFIED_FAMILY;
        Wrapper::new(GEMMA4_UNIFIED_FAMILY, &[(decoder.model_type, decoder)]).read(config)
    },
};

pub(super) const ARIA_FAMILY: Family = Family {
    architecture: "AriaForConditionalGeneration",
    model_type: "aria",
    translate: |config| {
        let wrapper = Wrapper {
            tied: false,
            ..Wrapper::new(ARIA_FAMILY, &[(aria_text::FAMILY.model_type, aria_text::FAMILY)])
        };
        wrapper.read(config)
    },
};

pub(super) const LLAMA4_FAMILY: Family = Family {
    architecture: "Llama4ForConditionalGeneration",
    model_type: "llama4",
    translate: |config| {
        let wrapper = Wrapper {
            tied: false,
            ..Wrapper::new(LLAMA4_FAMILY, &[(llama4::FAMILY.model_type, llama4::FAMILY)])
        };
        wrapper.read(config)
    },
};

pub(super) const MISTRAL3_FAMILY: Family = Family {
    architecture: "Mistral3ForConditionalGeneration",
    model_type: "mistral3",
    translate: |config| {
        let decoders = [mistral::FAMILY, ministral3::FAMILY, mistral4::FAMILY];
        let decoders = decoders.map(|decoder| (decoder.model_type, decoder));
        Wrapper::new(MISTRAL3_FAMILY, &decoders).read(config)
    },
};

pub(super) const KIMI_K25_FAMILY: Family = Family {
    architecture: "KimiK25ForConditionalGeneration",
    model_type: "kimi_k25",
    translate: |config| {
        let decoders = [("deepseek_v3", deepseek_v3::FAMILY), ("kimi_k2", deepseek_v3::FAMILY)];
        Wrapper::new(KIMI_K25_FAMILY, &decoders).read(config)
    },
};

pub(super) const QWEN2_VL_FAMILY: Family = Family {
    architecture: "Qwen2VLForConditionalGeneration",
    model_type: "qwen2_vl",
    translate: |config| qwen_vl(QWEN2_VL_FAMILY, ("qwen2_vl_text", qwen2::FAMILY), config),
};

pub(super) const QWEN2_5_VL_FAMILY: Family = Family {
    architecture: "Qwen2_5_VLForConditionalGeneration",
    model_type: "qwen2_5_vl",
    translate: |config| qwen_vl(QWEN2_5_VL_FAMILY, ("qwen2_5_vl_text", qwen2::FAMILY), config),
};

pub(super) const QWEN3_VL_FAMILY: Family = Family {
    architecture: "Qwen3VLForConditionalGeneration",
    model_type: "qwen3_vl",
    translate: |config| qwen_vl(QWEN3_VL_FAMILY, ("qwen3_vl_text", qwen3::FAMILY), config),
};

pub(super) const QWEN3_VL_MOE_FAMILY: Family = Family {
    architecture: "Qwen3VLMoeForConditionalGeneration",
    model_type: "qwen3_vl_moe",
    translate: |config| qwen_vl(QWEN3_VL_MOE_FAMILY, ("qwen3_vl_moe_text", qwen3_moe::VL_FAMILY), config),
};

pub(super) const QWEN3_5_FAMILY: Family = Family {
    architecture: "Qwen3_5ForConditionalGeneration",
    model_type: "qwen3_5",
    translate: |config| qwen_vl(QWEN3_5_FAMILY, ("qwen3_5_text", qwen3_5::FAMILY), config),
};

pub(super) const QWEN3_5_MOE_FAMILY: Family = Family {
    architecture: "Qwen3_5MoeForConditionalGeneration",
    model_type: "qwen3_5_moe",
    translate: |config| {
        qwen_vl(
            QWEN3_5_MOE_FAMILY,
            ("qwen3_5_moe_text", qwen3_5::EXPERTS_FAMILY),
            config,
        )
    },
};

/// Qwen's wrappers do not tie unless told, and the first of them have the decoder's keys beside their own.
fn qwen_vl(family: Family, decoder: (&str, Family), config: Config<'_>) -> Result<Architecture, Error> {
    let wrapper = Wrapper {
        tied: false,
        flat: true,
        ..Wrapper::new(family, std::slice::from_ref(&decoder))
    };
    wrapper.read(config)
}

/// How a family wraps decoders.
struct Wrapper<'a> {
    family: Family,
    /// By the `model_type` of `text_config`; the first where it does not say one.
    decoders: &'a [(&'a str, Family)],
    /// Whether the token table is the head where nothing says so.
    tied: bool,
    /// The decoder's keys may stand without `text_config`.
    flat: bool,
}

impl<'a> Wrapper<'a> {
    fn new(family: Family, decoders: &'a [(&'a str, Family)]) -> Wrapper<'a> {
        Wrapper {
            family,
            decoders,
            tied: true,
            flat: false,
        }
    }

    /// Translates the text part by its family.
    fn read(&self, config: Config<'_>) -> Result<Architecture, Error> {
        let (text, model_type) = match config.object("text_config")? {
            Some(text) => (text, text.optional_text("model_type")?),
            None if self.flat => (config, None),
            None => return Err(config.error("text_config", "an object")),
        };
        let decoder = match model_type {
            None => self.decoders.first(),
            Some(found) => self.decoders.iter().find(|(model_type, _)| *model_type == found),
        };
        let known: Vec<&str> = self.decoders.iter().map(|(model_type, _)| *model_type).collect();
        let (_, decoder) = decoder.ok_or_else(|| text.error("model_type", &known.join(" or ")))?;
        let mut architecture = (decoder.translate)(text)?;
        architecture.name = self.family.architecture.to_owned();
        let tied = config.flag("tie_word_embeddings", self.tied)?;
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
}
