//! GraniteMoeSharedForCausalLM: Granite with routed experts and a shared feed-forward block beside them.

use serde_json::json;

use super::Family;
use super::granite::granite_like;
use super::granitemoe::{experts, read_experts};
use super::granitemoehybrid::{shared_feed_forward, with_shared};
use super::parts::Sizes;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "GraniteMoeSharedForCausalLM",
    model_type: "granitemoeshared",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_experts_per_tok": 2, "num_local_experts": 8, "shared_intermediate_size": 0});
    let config = config.with_defaults(&defaults);
    let routed = read_experts(config)?;
    let sizes = Sizes {
        intermediate: config.whole("shared_intermediate_size", 0)?,
        ..Sizes::read(config, 0)?
    };
    granite_like(config, FAMILY.architecture, |index| {
        let experts = experts(&routed, index);
        if sizes.intermediate == 0 {
            return Ok(Some(experts.into()));
        }
        let shared = shared_feed_forward(config, sizes, &format!("model.layers.{index}.shared_mlp"))?;
        Ok(Some(with_shared(experts, shared).into()))
    })
}
