//! AriaTextForCausalLM: Llama with routed experts and shared ones.

use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use crate::config::Config;
use crate::{Activation, Architecture, Error, ExpertsSpec, FusedRows, FusedStack, LinearSpec, StackPlace};

pub(super) const FAMILY: Family = Family {
    architecture: "AriaTextForCausalLM",
    model_type: "aria_text",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"moe_num_experts": 8, "moe_topk": 2, "moe_num_shared_experts": 2});
    let config = config.with_defaults(&defaults);
    let routing = softmax_routing(config, "moe_topk", true)?;
    let routed = Routed {
        activation: Activation::Silu,
        ..Routed::read(config, "intermediate_size", "moe_num_experts", routing)?
    };
    let shared = config.count("moe_num_shared_experts")? * routed.intermediate;
    let bias = config.flag("attention_bias", false)?;
    let mlp_bias = config.flag("mlp_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        ..Differences::default()
    };
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        let paths = Paths::usual(index);
        let path = &paths.hub;
        let router = LinearSpec::new(format!("{path}.router"), routed.experts, routed.hidden);
        let mut experts = ExpertsSpec {
            router: vec![router],
            shared: Some(routed.shared(sizes, &format!("{path}.shared_experts"), shared, mlp_bias)),
            ..routed.at(&paths)
        };
        let columns = |name: &str, total, start| {
            StackPlace::Columns(FusedStack {
                name: format!("{path}.experts.{name}"),
                total,
                rows: FusedRows::From(start),
            })
        };
        let both = 2 * routed.intermediate;
        let places = |name: [&str; 2], total, start| name.map(|name| columns(name, total, start)).to_vec();
        let inner = ["fc1.weight", "gate_up_proj"];
        if let Some(gate) = &mut experts.gate {
            gate.places = places(inner, both, 0);
        }
        experts.up.places = places(inner, both, routed.intermediate);
        experts.down.places = places(["fc2.weight", "down_proj"], routed.hidden, 0);
        layer.feed_forward = experts.into();
        Ok(())
    })
}
