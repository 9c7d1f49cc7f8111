//! Ernie4_5ForCausalLM: Llama that rotates neighbouring values, with biases everywhere if the config says so.

use serde_json::json;

use super::Family;
use super::common::{Differences, Llama};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, Error, RopePairs, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "Ernie4_5ForCausalLM",
    model_type: "ernie4_5",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "rope_theta": 500_000.0, "head_dim": 128, "num_key_value_heads": 2,
        "tie_word_embeddings": true
    });
    let config = config.with_defaults(&defaults);
    let bias = config.flag("use_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        feed_forward_bias: bias,
        ..Differences::default()
    };
    let llama = Llama::read(config, differences)?;
    let rope = RopeSpec {
        pairs: RopePairs::Neighbours,
        ..read_rope(config, llama.sizes.head_dim)?
    };
    llama.decoder(config, FAMILY.architecture, vec![rope], |_, _| Ok(()))
}
