//! PhimoeForCausalLM (Phi 3.5 MoE): Mixtral with layer norms, biases, and experts chosen by SparseMixer.

use planish_ops::{NormKind, Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common::{Differences, NormStyle, adapted_layers};
use super::common_experts::{Paths, Routed, softmax_routing};
use crate::config::Config;
use crate::{Architecture, Error, HeadSpec, LinearSpec, RopeScaling};

pub(super) const FAMILY: Family = Family {
    architecture: "PhimoeForCausalLM",
    model_type: "phimoe",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "rope_theta": 1e6, "num_key_value_heads": 8, "num_experts_per_tok": 2, "num_local_experts": 16,
        "router_jitter_noise": 0.01
    });
    let config = config.with_defaults(&defaults);
    let routing = Routing {
        scoring: Scoring::SparseMixer {
            jitter: config.number("router_jitter_noise")? as f32,
        },
        ..softmax_routing(config, "num_experts_per_tok", false)?
    };
    if routing.chosen != 2 {
        return Err(config.error("num_experts_per_tok", "2"));
    }
    let routed = Routed::read(config, "intermediate_size", "num_local_experts", routing)?;
    let attention_bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: attention_bias,
        output_bias: attention_bias,
        norm: NormStyle {
            kind: NormKind::Layer,
            ..NormStyle::RMS
        },
        ..Differences::default()
    };
    let window = config.optional_count("sliding_window")?;
    let mut architecture = adapted_layers(config, FAMILY.architecture, differences, |_, index, layer| {
        layer.norms.iter_mut().flatten().for_each(|norm| norm.bias = true);
        layer.attention.window = window;
        let paths = Paths::mixtral(index);
        let mut experts = routed.at(&paths);
        let module = format!("{}.router", paths.module);
        experts.router[1] = LinearSpec::new(module, routed.experts, routed.hidden);
        layer.feed_forward = experts.into();
        Ok(())
    })?;
    architecture.final_norm.bias = true;
    if let HeadSpec::Separate(head) = &mut architecture.head {
        head.bias = config.flag("lm_head_bias", false)?;
    }
    scale_rope(config, &mut architecture.ropes[0].scaling)?;
    Ok(architecture)
}

/// Longrope multiplies cosines and sines by factors of its own here.
fn scale_rope(config: Config<'_>, scaling: &mut RopeScaling) -> Result<(), Error> {
    let parameters = config.object("rope_scaling")?.or(config.object("rope_parameters")?);
    match (scaling, parameters) {
        (RopeScaling::Default, _) => Ok(()),
        (RopeScaling::LongRope { attention_factor, .. }, Some(parameters)) => {
            *attention_factor = parameters.number("short_mscale")?;
            match parameters.number("long_mscale")? == *attention_factor {
                true => Ok(()),
                false => Err(parameters.error("long_mscale", "the same as short_mscale")),
            }
        }
        _ => Err(config.error("rope_parameters", "the type default or longrope")),
    }
}
