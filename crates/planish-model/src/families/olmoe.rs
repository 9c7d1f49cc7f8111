//! OlmoeForCausalLM: routed experts in every layer; all query heads are normalized together, and all key heads.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use super::parts::refuse;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "OlmoeForCausalLM",
    model_type: "olmoe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5, "num_experts_per_tok": 8, "num_experts": 64});
    let config = config.with_defaults(&defaults);
    refuse(config, "clip_qkv")?;
    let routing = softmax_routing(config, "num_experts_per_tok", config.flag("norm_topk_prob", false)?)?;
    let routed = Routed::read(config, "intermediate_size", "num_experts", routing)?;
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: HeadNorms::Together,
        ..Differences::default()
    };
    adapted_layers(config, FAMILY.architecture, differences, |_, index, layer| {
        layer.feed_forward = routed.at(&Paths::usual(index)).into();
        Ok(())
    })
}
