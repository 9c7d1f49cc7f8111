//! The families: each file translates one kind of config.json into an [`Architecture`] and refuses by name what it does
//! not understand. To add one: write its file and its row in [`FAMILIES`].

mod afmoe;
mod apertus;
mod arcee;
mod aria_text;
mod axk1;
mod bamba;
mod biogpt;
mod bitnet;
mod bloom;
mod codegen;
mod cohere;
mod cohere2;
mod cohere2_moe;
mod cohere_compass;
mod common;
mod common_experts;
mod common_latent;
mod ctrl;
mod cwm;
mod dbrx;
mod deepseek_v2;
mod deepseek_v3;
mod deepseek_v32;
mod delta_net;
mod dots1;
mod ernie4_5;
mod ernie4_5_moe;
mod exaone4;
mod exaone_moe;
mod falcon;
mod falcon_h1;
mod flex_olmo;
mod flint;
mod gemma;
mod gemma2;
mod gemma3;
mod gemma3n;
mod gemma4;
mod glm;
mod glm4;
mod glm4_moe;
mod glm4_moe_lite;
mod gpt2;
mod gpt_bigcode;
mod gpt_neo;
mod gpt_neox;
mod gpt_neox_japanese;
mod gpt_oss;
mod gptj;
mod granite;
mod granite_swa;
mod granitemoe;
mod granitemoehybrid;
mod granitemoeshared;
mod helium;
mod hunyuan_v1_dense;
mod hunyuan_v1_moe;
mod hy_v3;
mod hyperclovax;
mod internlm2;
mod internlm3;
mod iquestcoder;
mod jais2;
mod jamba;
mod laguna;
mod lfm2;
mod lfm2_moe;
mod lfm3;
mod llama;
mod llama4;
mod mamba;
mod mamba2;
mod mamba2_only;
mod mellum;
mod mimo_v2_flash;
mod minicpm;
mod minicpm3;
mod minimax_m2;
mod ministral;
mod ministral3;
mod mistral;
mod mistral4;
mod mixtral;
mod mpt;
mod nanochat;
mod nemotron;
mod nemotron_h;
mod olmo;
mod olmo2;
mod olmo3;
mod olmoe;
mod openai_gpt;
mod opt;
mod parts;
mod persimmon;
mod phi;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_5;
mod qwen3_moe;
mod qwen3_next;
mod seed_oss;
mod smollm3;
mod solar_open;
mod stablelm;
mod starcoder2;
mod tested;
mod vaultgemma;
mod wrapped;
mod youtu;

use std::collections::HashSet;

use serde_json::{Map, Value};

pub use self::tested::{FamilyInfo, Tested};

use planish_checkpoint::Checkpoint;

use crate::config::Config;
use crate::{Architecture, Error};

/// A row of the table of families.
pub(crate) struct Family {
    /// The name in `architectures` of config.json.
    pub(crate) architecture: &'static str,
    /// `model_type`, for configs whose `architectures` is absent or unknown.
    pub(crate) model_type: &'static str,
    /// From config.json to layers.
    pub(crate) translate: fn(Config<'_>) -> Result<Architecture, Error>,
}

static FAMILIES: &[Family] = &[
    afmoe::FAMILY,
    apertus::FAMILY,
    arcee::FAMILY,
    aria_text::FAMILY,
    axk1::FAMILY,
    bamba::FAMILY,
    biogpt::FAMILY,
    biogpt::XGLM_FAMILY,
    bitnet::FAMILY,
    bloom::FAMILY,
    codegen::FAMILY,
    cohere2::FAMILY,
    cohere2_moe::FAMILY,
    cohere::FAMILY,
    cohere_compass::FAMILY,
    ctrl::FAMILY,
    cwm::FAMILY,
    dbrx::FAMILY,
    deepseek_v2::FAMILY,
    deepseek_v32::FAMILY,
    deepseek_v32::GLM_FAMILY,
    deepseek_v3::FAMILY,
    dots1::FAMILY,
    ernie4_5::FAMILY,
    ernie4_5_moe::FAMILY,
    exaone4::FAMILY,
    exaone_moe::FAMILY,
    falcon::FAMILY,
    falcon_h1::FAMILY,
    flex_olmo::FAMILY,
    flint::FAMILY,
    flint::KOLIBRI_FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    gemma3n::FAMILY,
    gemma4::FAMILY,
    gemma4::UNIFIED_FAMILY,
    gemma::FAMILY,
    glm4::FAMILY,
    glm4_moe::FAMILY,
    glm4_moe_lite::FAMILY,
    glm::FAMILY,
    gpt2::FAMILY,
    gpt_bigcode::FAMILY,
    gpt_neo::FAMILY,
    gpt_neox::FAMILY,
    gpt_neox_japanese::FAMILY,
    gpt_oss::FAMILY,
    gptj::FAMILY,
    granite::FAMILY,
    granite_swa::EXPERTS_FAMILY,
    granite_swa::FAMILY,
    granitemoe::FAMILY,
    granitemoehybrid::FAMILY,
    granitemoeshared::FAMILY,
    helium::FAMILY,
    hunyuan_v1_dense::FAMILY,
    hunyuan_v1_moe::FAMILY,
    hy_v3::FAMILY,
    hyperclovax::FAMILY,
    internlm2::FAMILY,
    internlm3::FAMILY,
    iquestcoder::FAMILY,
    jais2::FAMILY,
    jamba::FAMILY,
    laguna::FAMILY,
    lfm2::FAMILY,
    lfm2_moe::FAMILY,
    lfm3::FAMILY,
    llama4::FAMILY,
    llama::FAMILY,
    mamba2_only::FAMILY,
    mamba::FALCON_FAMILY,
    mamba::FAMILY,
    mellum::FAMILY,
    mimo_v2_flash::FAMILY,
    minicpm3::FAMILY,
    minicpm::FAMILY,
    minimax_m2::FAMILY,
    ministral3::FAMILY,
    ministral::FAMILY,
    mistral4::FAMILY,
    mistral::FAMILY,
    mixtral::FAMILY,
    mpt::FAMILY,
    nanochat::FAMILY,
    nemotron::FAMILY,
    nemotron_h::FAMILY,
    olmo2::FAMILY,
    olmo3::FAMILY,
    olmo::FAMILY,
    olmoe::FAMILY,
    openai_gpt::FAMILY,
    opt::FAMILY,
    persimmon::FAMILY,
    phi3::FAMILY,
    phi3::PHI4_FAMILY,
    phi::FAMILY,
    phimoe::FAMILY,
    qwen2::FAMILY,
    qwen2_moe::FAMILY,
    qwen3::FAMILY,
    qwen3_5::EXPERTS_FAMILY,
    qwen3_5::FAMILY,
    qwen3_moe::FAMILY,
    qwen3_next::FAMILY,
    seed_oss::FAMILY,
    smollm3::FAMILY,
    solar_open::FAMILY,
    stablelm::FAMILY,
    starcoder2::FAMILY,
    vaultgemma::FAMILY,
    wrapped::ARIA_FAMILY,
    wrapped::GEMMA3N_FAMILY,
    wrapped::GEMMA3_FAMILY,
    wrapped::GEMMA4_FAMILY,
    wrapped::GEMMA4_UNIFIED_FAMILY,
    wrapped::KIMI_K25_FAMILY,
    wrapped::LLAMA4_FAMILY,
    wrapped::MISTRAL3_FAMILY,
    wrapped::QWEN2_5_VL_FAMILY,
    wrapped::QWEN2_VL_FAMILY,
    wrapped::QWEN3_5_FAMILY,
    wrapped::QWEN3_5_MOE_FAMILY,
    wrapped::QWEN3_VL_FAMILY,
    wrapped::QWEN3_VL_MOE_FAMILY,
    youtu::FAMILY,
];

/// Whether an architecture that no family has is a decoder's, by its name: `model_type` says which. Heads for other tasks are not.
fn is_decoder(name: &str) -> bool {
    ["ForCausalLM", "LMHeadModel", "ForConditionalGeneration"]
        .iter()
        .any(|ending| name.ends_with(ending))
}

impl Architecture {
    /// Translates config.json.
    ///
    /// # Errors
    /// An architecture that no family knows; a key that is missing, of the wrong kind, or not understood.
    pub fn from_config(config: &Map<String, Value>) -> Result<Architecture, Error> {
        Architecture::translate(Config::new(config))
    }

    /// Translates the config.json of a checkpoint, whose tensors must bear out the number of layers.
    ///
    /// # Errors
    /// As [`Architecture::from_config`]; more layers than there are tensors of.
    pub fn of(checkpoint: &Checkpoint) -> Result<Architecture, Error> {
        let layer = |name: &str| name.split('.').find_map(|part| part.parse::<u32>().ok());
        let layers: HashSet<u32> = checkpoint
            .entries()
            .iter()
            .filter_map(|entry| layer(&entry.name))
            .collect();
        Architecture::translate(Config::new(checkpoint.config()).with_layers(layers.len()))
    }

    fn translate(config: Config<'_>) -> Result<Architecture, Error> {
        let name = config.texts("architectures")?.and_then(|names| names.first().copied());
        let model_type = config.optional_text("model_type")?;
        let named = FAMILIES.iter().find(|family| name == Some(family.architecture));
        let typed = || FAMILIES.iter().find(|family| model_type == Some(family.model_type));
        let family = named.or_else(|| typed().filter(|_| name.is_none_or(is_decoder)));
        let Some(family) = family else {
            let found = name.or(model_type).unwrap_or("").to_owned();
            return Err(Error::UnknownArchitecture {
                found,
                known: Architecture::supported(),
            });
        };
        (family.translate)(config)
    }

    /// The names of every architecture that can be run, as in `architectures` of config.json.
    pub fn supported() -> Vec<&'static str> {
        FAMILIES.iter().map(|family| family.architecture).collect()
    }
}
