//! GraniteMoeSharedForCausalLM: Granite with routed experts and a shared feed-forward block beside them.

use serde_json::json;

use super::Family;
use super::granite::granite_like;
use super::granitemoe::{experts, read_experts};
use super::granitemoehybrid::{shared_feed_forward, with_shared};
use super::parts::Sizes;
use crate::config::Config;
use crate::{Architecture, BlockSpec, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "GraniteMoeSharedForCausalLM",
    model_type: "granitemoeshared",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let block = read_shared(config)?;
    granite_like(config, FAMILY.architecture, |index, layer| {
        layer.feed_forward = block(index)?;
        Ok(())
    })
}

/// The experts of a layer, with a shared block where the config has one.
pub(super) fn read_shared(config: Config<'_>) -> Result<impl Fn(usize) -> Result<BlockSpec, Error>, Error> {
    let defaults = json!({"num_experts_per_tok": 2, "num_local_experts": 8});
    let routed = read_experts(config.with_defaults(&defaults))?;
    let sizes = Sizes {
        intermediate: config.whole("shared_intermediate_size", 0)?,
        ..Sizes::read(config, 0)?
    };
    Ok(move |index| {
        let experts = experts(&routed, index);
        if sizes.intermediate == 0 {
            return Ok(experts.into());
        }
        let shared = shared_feed_forward(config, sizes, &format!("model.layers.{index}.shared_mlp"))?;
        Ok(with_shared(experts, shared).into())
    })
}
