//! LagunaForCausalLM: gated attention with as many heads as each layer says, windows and a rotation of their own in some layers,
//! routed experts with logistic scores.

use planish_ops::{Activation, Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, Llama};
use super::common_experts::{Paths, Routed, read_kinds};
use super::parts::{Sizes, linear, only, window_of_layer};
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{Architecture, AttentionSpec, Error, ExpertsSpec, GateSpec, ScoreCorrectionSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "LagunaForCausalLM",
    model_type: "laguna",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 8, "head_dim": 128, "sliding_window": 512, "moe_intermediate_size": 512, "num_experts": 256,
        "shared_expert_intermediate_size": 512, "num_experts_per_tok": 8, "moe_routed_scaling_factor": 1.0,
        "partial_rotary_factor": 1.0, "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500000.0, "partial_rotary_factor": 0.5},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}
        }
    });
    let config = config.with_defaults(&defaults);
    only(config, "moe_apply_router_weight_on_input", false)?;
    if config.optional_number("moe_router_logit_softcapping")?.unwrap_or(0.0) != 0.0 {
        return Err(config.error("moe_router_logit_softcapping", "0"));
    }
    let routing = Routing {
        chosen: config.count("num_experts_per_tok")?,
        scoring: Scoring::Sigmoid,
        groups: None,
        normalize: Some(0.0),
        scale: config.number("moe_routed_scaling_factor")? as f32,
    };
    let routed = Routed::read(config, "moe_intermediate_size", "num_experts", routing)?;
    let shared = config.count("shared_expert_intermediate_size")?;
    let kinds = read_kinds(config)?;
    let is_sparse = |index: usize| kinds.as_ref().map_or(index > 0, |kinds| kinds[index]);
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        head_norms: HeadNorms::Shared,
        ..Differences::default()
    };
    let llama = Llama::read(config, differences)?;
    let head_dim = llama.sizes.head_dim;
    let ropes = vec![
        read_rope_of_kind(config, "full_attention", "rope_theta", head_dim)?,
        read_rope_of_kind(config, "sliding_attention", "rope_theta", head_dim)?,
    ];
    let (window, by_head) = (config.optional_count("sliding_window")?, gates_heads(config)?);
    let heads = read_heads(config, &llama.sizes)?;
    llama.decoder_of(config, FAMILY.architecture, ropes, |index| {
        let mut layer = llama.layer(index);
        let path = format!("model.layers.{index}");
        let sizes = Sizes {
            heads: heads[index],
            ..llama.sizes
        };
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let attention = sizes.attention(&format!("{path}.self_attn"), names, bias, bias);
        let window = window_of_layer(config, window, |_| false, index)?;
        let gate = format!("{path}.self_attn.g_proj");
        layer.attention = AttentionSpec {
            query_norm: layer.attention.query_norm,
            key_norm: layer.attention.key_norm,
            rope: Some(usize::from(window.is_some())),
            window,
            gate: Some(GateSpec {
                activation: Activation::Softplus,
                ..match by_head {
                    true => GateSpec::of_heads(gate, &attention),
                    false => GateSpec::new(linear(gate, attention.query.rows, sizes.hidden, false)),
                }
            }),
            ..attention
        };
        if is_sparse(index) {
            let paths = Paths::usual(index);
            let score_correction = ScoreCorrectionSpec {
                names: ["experts.e_score_correction_bias", "gate.e_score_correction_bias"]
                    .map(|name| format!("{}.{name}", paths.hub))
                    .to_vec(),
                required: true,
            };
            let path = format!("{}.shared_expert", paths.hub);
            layer.feed_forward = ExpertsSpec {
                score_correction: Some(score_correction),
                shared: Some(routed.shared(&sizes, &path, shared, false)),
                ..routed.at(&paths)
            }
            .into();
        }
        Ok(llama.assemble(layer))
    })
}

/// Whether a head has one gate, not one for each of its values.
fn gates_heads(config: Config<'_>) -> Result<bool, Error> {
    const KEY: &str = "gating";
    let gating = config.value(KEY);
    match gating.and_then(|gating| gating.as_str()) {
        Some("per-head") => Ok(true),
        Some("per-element") => Ok(false),
        None => config.flag(KEY, true),
        Some(_) => Err(config.error(KEY, "true, false, per-head or per-element")),
    }
}

/// Query heads of each layer.
fn read_heads(config: Config<'_>, sizes: &Sizes) -> Result<Vec<usize>, Error> {
    const KEY: &str = "num_attention_heads_per_layer";
    let Some(heads) = config.numbers(KEY)? else {
        return Ok(vec![sizes.heads; sizes.layers]);
    };
    let heads: Vec<usize> = heads.into_iter().map(|heads| heads as usize).collect();
    let fits = |&heads: &usize| heads > 0 && heads <= 1 << 16 && heads.is_multiple_of(sizes.kv_heads);
    match heads.len() >= sizes.layers && heads.iter().all(fits) {
        true => Ok(heads),
        false => Err(config.error(KEY, "a multiple of num_key_value_heads for every layer")),
    }
}
