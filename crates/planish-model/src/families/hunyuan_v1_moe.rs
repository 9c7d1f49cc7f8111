//! HunYuanMoEV1ForCausalLM: the dense HunYuan with routed experts and a shared one in every layer.

use serde_json::{Value, json};

use super::Family;
use super::common_experts::{Paths, Routed, softmax_routing};
use super::hunyuan_v1_dense::hunyuan_like;
use crate::config::Config;
use crate::{Architecture, Error, ExpertsSpec, LinearSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "HunYuanMoEV1ForCausalLM",
    model_type: "hunyuan_v1_moe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5, "moe_topk": 1, "num_experts": 1});
    let config = config.with_defaults(&defaults);
    let (chosen, experts) = (same_in_all(config, "moe_topk")?, same_in_all(config, "num_experts")?);
    let sizes = json!({"rms_norm_eps": 1e-5, "chosen": chosen, "experts": experts});
    let config = config.with_defaults(&sizes);
    for key in ["num_shared_expert", "moe_intermediate_size"] {
        same_in_all(config, key)?;
    }
    let routing = softmax_routing(config, "chosen", true)?;
    let routed = Routed::read(config, "intermediate_size", "experts", routing)?;
    hunyuan_like(config, FAMILY.architecture, |sizes, index| {
        let paths = Paths::usual(index);
        let router = LinearSpec::new(format!("{}.gate.wg", paths.hub), routed.experts, routed.hidden);
        let shared = routed.shared(sizes, &format!("{}.shared_mlp", paths.hub), sizes.intermediate, false);
        let experts = ExpertsSpec {
            router: vec![router],
            shared: Some(shared),
            ..routed.at(&paths)
        };
        Some(experts.into())
    })
}

/// A count, or a list of it for every layer; 1 where there is none.
fn same_in_all(config: Config<'_>, key: &str) -> Result<usize, Error> {
    let list = config.value(key).and_then(Value::as_array);
    let Some(list) = list else {
        return Ok(config.optional_count(key)?.unwrap_or(1));
    };
    let first = list.first().and_then(Value::as_u64).filter(|&count| count > 0);
    match first {
        Some(first) if list.iter().all(|other| other.as_u64() == Some(first)) => Ok(first as usize),
        _ => Err(config.error(key, "the same positive whole number for every layer")),
    }
}
