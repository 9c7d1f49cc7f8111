//! GptOssForCausalLM: attention with sinks, every second layer with a window; experts with biases, of 4-bit floats.

use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Activation, Architecture, Error, ExpertsSpec, FusedRows, FusedStack, LinearSpec, StackPlace, StackSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "GptOssForCausalLM",
    model_type: "gpt_oss",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 8, "head_dim": 64, "num_local_experts": 128, "num_experts_per_tok": 4, "sliding_window": 128,
        "rms_norm_eps": 1e-5, "swiglu_alpha": 1.702, "swiglu_limit": 7.0, "rope_theta": 150000.0, "rope_parameters": {
            "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
            "original_max_position_embeddings": 4096
        }
    });
    let config = config.with_defaults(&defaults);
    let routing = softmax_routing(config, "num_experts_per_tok", true)?;
    let routed = Routed {
        activation: Activation::ClampedSwiglu {
            slope: config.number("swiglu_alpha")? as f32,
            limit: limit(config)?,
        },
        ..Routed::read(config, "intermediate_size", "num_local_experts", routing)?
    };
    let attention_bias = config.flag("attention_bias", true)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        ..Differences::default()
    };
    let window = config.optional_count("sliding_window")?;
    adapted_layers(config, FAMILY.architecture, differences, |_, index, layer| {
        layer.attention.sinks = Some(format!("model.layers.{index}.self_attn.sinks"));
        layer.attention.window = window_of_layer(config, window, |index| index.is_multiple_of(2), index)?;
        layer.feed_forward = experts(&routed, index).into();
        Ok(())
    })
}

/// Bounds of gate and up, which lie on both sides of 0.
fn limit(config: Config<'_>) -> Result<f32, Error> {
    match config.number("swiglu_limit")? as f32 {
        limit if limit >= 0.0 => Ok(limit),
        _ => Err(config.error("swiglu_limit", "a number of at least 0")),
    }
}

/// Gate and up take turns in the rows of one tensor, which is 4-bit floats, or plain with columns before rows.
fn experts(routed: &Routed, index: usize) -> ExpertsSpec {
    let paths = Paths::usual(index);
    let path = &paths.hub;
    let fused = |name: &str, rows| FusedStack {
        name: format!("{path}.experts.{name}"),
        total: 2 * routed.intermediate,
        rows,
    };
    let whole = |name: String, rows| FusedStack::whole(format!("{path}.experts.{name}"), rows);
    let places = |stack: &mut StackSpec, name: &str, joint: [FusedStack; 2]| {
        let [weights, biases] = joint;
        stack.places = vec![
            StackPlace::Mxfp4(weights.clone()),
            StackPlace::Fused(whole(format!("{name}.weight"), stack.rows)),
            StackPlace::Columns(weights),
        ];
        stack.biases = vec![biases, whole(format!("{name}.bias"), stack.rows)];
    };
    let mut experts = routed.at(&paths);
    experts.router = vec![LinearSpec::new(format!("{path}.router"), routed.experts, routed.hidden).with_bias(true)];
    let gate = experts
        .gate
        .as_mut()
        .map(|gate| (gate, "gate_proj", FusedRows::EverySecond(0)));
    let up = (&mut experts.up, "up_proj", FusedRows::EverySecond(1));
    for (stack, name, rows) in gate.into_iter().chain([up]) {
        places(
            stack,
            name,
            [fused("gate_up_proj", rows), fused("gate_up_proj_bias", rows)],
        );
    }
    let down = ["down_proj", "down_proj_bias"].map(|name| whole(name.to_owned(), routed.hidden));
    places(&mut experts.down, "down_proj", down);
    experts
}
