//! YoutuForCausalLM: Llama with latent attention.

use serde_json::json;

use super::Family;
use super::common_latent::{LatentDecoder, read_pairs};
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "YoutuForCausalLM",
    model_type: "youtu",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "kv_lora_rank": 512, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
        "num_key_value_heads": 16, "tie_word_embeddings": true
    });
    let config = config.with_defaults(&defaults);
    LatentDecoder::new(read_pairs(config)?).read(config, FAMILY.architecture)
}
