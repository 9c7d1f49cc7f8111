//! JambaForCausalLM: layers of Mamba 1, every few of them one of attention without positions, experts in every second.

use serde_json::json;

use super::Family;
use super::common_experts::{Paths, Routed, softmax_routing};
use super::mamba::{Keys, Mamba};
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::{Architecture, AttentionSpec, BlockSpec, BranchSpec, Error, ExpertsSpec, LayerSpec, LinearSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "JambaForCausalLM",
    model_type: "jamba",
    translate,
};

const KEYS: Keys = Keys {
    state: "mamba_d_state",
    taps: "mamba_d_conv",
    expand: "mamba_expand",
    rank: "mamba_dt_rank",
    bias: "mamba_proj_bias",
    convolution_bias: "mamba_conv_bias",
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "num_key_value_heads": 8, "max_position_embeddings": 262144, "num_experts": 16, "num_experts_per_tok": 2,
        "expert_layer_period": 2, "expert_layer_offset": 1, "attn_layer_period": 8, "attn_layer_offset": 4
    });
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 0)?;
    let mamba = Mamba::read(config, sizes.hidden, &KEYS)?;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-6)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let (attends, routes) = (every(config, "attn_layer")?, every(config, "expert_layer")?);
    let routed = match config.count("num_experts")? {
        1 => None,
        _ => {
            let routing = softmax_routing(config, "num_experts_per_tok", false)?;
            Some(Routed::read(config, "intermediate_size", "num_experts", routing)?)
        }
    };
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| NormSpec::rms(path(part), sizes.hidden, epsilon);
        let mixer: BlockSpec = match attends(index) {
            true => AttentionSpec {
                rope: None,
                ..sizes.attention(
                    &path("self_attn"),
                    ["q_proj", "k_proj", "v_proj", "o_proj"],
                    false,
                    false,
                )
            }
            .into(),
            false => {
                let norms = ["mamba.dt_layernorm", "mamba.b_layernorm", "mamba.c_layernorm"].map(norm);
                mamba.layer(&path("mamba"), Some(norms)).into()
            }
        };
        let feed_forward: BlockSpec = match &routed {
            Some(routed) if routes(index) => experts(routed, path("feed_forward")).into(),
            _ => {
                let names = ["gate_proj", "up_proj", "down_proj"];
                sizes.gated(&path("feed_forward"), names, false, activation).into()
            }
        };
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm("input_layernorm"), mixer),
            BranchSpec::new(norm("pre_ff_layernorm"), feed_forward),
        ]))
    };
    let final_norm = NormSpec::rms("model.final_layernorm", sizes.hidden, epsilon);
    let head = sizes.head(config, "lm_head", false)?;
    sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)
}

/// Which layers are of a kind that comes once in a period, by `{kind}_period` and `{kind}_offset`.
fn every(config: Config<'_>, kind: &str) -> Result<impl Fn(usize) -> bool, Error> {
    let period = config.count(&format!("{kind}_period"))?;
    let key = format!("{kind}_offset");
    let offset = config.whole(&key, 0)?;
    match offset < period {
        true => Ok(move |index: usize| index % period == offset),
        false => Err(config.error(&key, &format!("less than {kind}_period"))),
    }
}

fn experts(routed: &Routed, path: String) -> ExpertsSpec {
    let router = LinearSpec::new(format!("{path}.router"), routed.experts, routed.hidden);
    let paths = Paths {
        hub: path.clone(),
        names: ["gate_proj", "up_proj", "down_proj"],
        module: path,
    };
    ExpertsSpec {
        router: vec![router],
        ..routed.at(&paths)
    }
}
