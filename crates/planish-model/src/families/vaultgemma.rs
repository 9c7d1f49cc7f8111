//! VaultGemmaForCausalLM: Gemma 2 without norms after the blocks.

use serde_json::json;

use super::Family;
use super::common::Differences;
use super::gemma2::{differences, gemma2_like};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "VaultGemmaForCausalLM",
    model_type: "vaultgemma",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "head_dim": 256, "tie_word_embeddings": true, "sliding_window": 4096, "num_key_value_heads": 4,
        "query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0
    });
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        norms: [Some("input_layernorm"), None, Some("pre_feedforward_layernorm"), None],
        ..differences(config)?
    };
    gemma2_like(config, FAMILY.architecture, differences)
}
