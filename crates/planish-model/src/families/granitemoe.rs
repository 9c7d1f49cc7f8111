//! GraniteMoeForCausalLM: Granite with routed experts in place of the feed-forward blocks.

use serde_json::json;

use super::Family;
use super::common_experts::{Paths, Routed, softmax_routing};
use super::granite::granite_like;
use crate::config::Config;
use crate::{Architecture, Error, ExpertsSpec, FusedRows, FusedStack, LinearSpec, StackPlace};

pub(super) const FAMILY: Family = Family {
    architecture: "GraniteMoeForCausalLM",
    model_type: "granitemoe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_experts_per_tok": 2, "num_local_experts": 8});
    let config = config.with_defaults(&defaults);
    let routed = read_experts(config)?;
    granite_like(config, FAMILY.architecture, |index, layer| {
        layer.feed_forward = experts(&routed, index).into();
        Ok(())
    })
}

/// The experts of Granite's families.
pub(super) fn read_experts(config: Config<'_>) -> Result<Routed, Error> {
    Routed::read(
        config,
        "intermediate_size",
        "num_local_experts",
        softmax_routing(config, "num_experts_per_tok", true)?,
    )
}

/// Those of a layer: Hub files have one tensor for all of them, gate and up together.
pub(super) fn experts(routed: &Routed, index: usize) -> ExpertsSpec {
    let path = format!("model.layers.{index}.block_sparse_moe");
    let fused = |start| FusedStack {
        name: format!("{path}.input_linear.weight"),
        total: 2 * routed.intermediate,
        rows: FusedRows::From(start),
    };
    let router = |name: &str| LinearSpec::new(format!("{path}.{name}"), routed.experts, routed.hidden);
    let mut experts = routed.at(&Paths {
        hub: path.clone(),
        names: ["gate_proj", "up_proj", "down_proj"],
        module: path.clone(),
    });
    experts.router = vec![router("router.layer"), router("router")];
    let output = FusedStack::whole(format!("{path}.output_linear.weight"), routed.hidden);
    let stacks = experts.gate.iter_mut().chain([&mut experts.up, &mut experts.down]);
    for (stack, place) in stacks.zip([fused(0), fused(routed.intermediate), output]) {
        stack.places.insert(0, StackPlace::Fused(place));
    }
    experts
}
