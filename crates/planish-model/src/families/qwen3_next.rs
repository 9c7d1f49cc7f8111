//! Qwen3NextForCausalLM: three layers of a gated delta net to one of gated attention, routed experts with a shared one.

use serde_json::json;

use super::Family;
use super::common_experts::{Routed, softmax_routing};
use super::delta_net::DeltaNet;
use super::parts::{Sizes, activation, epsilon, linear};
use super::qwen2_moe::{self, is_sparse};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Activation, Architecture, AttentionSpec, BlockSpec, BranchSpec, Error, ExpertsSpec, GateSpec, LayerSpec, NormSpec,
    RecurrenceSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "Qwen3NextForCausalLM",
    model_type: "qwen3_next",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "partial_rotary_factor": 0.25, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
        "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "full_attention_interval": 4, "num_key_value_heads": 2, "decoder_sparse_step": 1, "num_experts": 512, "num_experts_per_tok": 10,
        "moe_intermediate_size": 512, "shared_expert_intermediate_size": 512
    });
    decoder(config.with_defaults(&defaults), FAMILY.architecture, DeltaNet::layer)
}

/// A decoder of the Qwen3-Next kind; `delta_layer` makes a layer of the gated delta net.
pub(super) fn decoder(
    config: Config<'_>,
    name: &str,
    delta_layer: fn(&DeltaNet, &str, f32, Activation) -> RecurrenceSpec,
) -> Result<Architecture, Error> {
    let sizes = Sizes::read(config, 256)?;
    let delta = DeltaNet::read(config, sizes.hidden)?;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-6)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let bias = config.flag("attention_bias", false)?;
    let experts = read_experts(config, &sizes)?;
    let norm = |name: String, size: usize| NormSpec {
        offset: 1.0,
        ..NormSpec::rms(name, size, epsilon)
    };
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let mixer: BlockSpec = match is_attention(config, index)? {
            true => AttentionSpec {
                query_norm: Some(norm(path("self_attn.q_norm"), sizes.head_dim)),
                key_norm: Some(norm(path("self_attn.k_norm"), sizes.head_dim)),
                ..gated_attention(&sizes, &path("self_attn"), bias)
            }
            .into(),
            false => delta_layer(&delta, &path("linear_attn"), epsilon, activation).into(),
        };
        let dense = || sizes.gated(&path("mlp"), ["gate_proj", "up_proj", "down_proj"], false, activation);
        let feed_forward: BlockSpec = match &experts {
            Some(experts) if is_sparse(config, index)? => experts(index).into(),
            _ => dense().into(),
        };
        let before = |part: &str| norm(path(part), sizes.hidden);
        Ok(LayerSpec::sequential([
            BranchSpec::new(before("input_layernorm"), mixer),
            BranchSpec::new(before("post_attention_layernorm"), feed_forward),
        ]))
    };
    let final_norm = norm("model.norm".to_owned(), sizes.hidden);
    let head = sizes.head(config, "lm_head", false)?;
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(name, "model.embed_tokens", layer, final_norm, head)?
    })
}

fn is_attention(config: Config<'_>, index: usize) -> Result<bool, Error> {
    let Some(kinds) = config.texts("layer_types")? else {
        return Ok((index + 1).is_multiple_of(config.count("full_attention_interval")?));
    };
    match kinds.get(index).copied() {
        Some("full_attention") => Ok(true),
        Some("linear_attention") => Ok(false),
        _ => Err(config.error("layer_types", "full_attention or linear_attention for every layer")),
    }
}

/// The experts of a layer, if layers have any.
fn read_experts<'a>(config: Config<'_>, sizes: &'a Sizes) -> Result<Option<impl Fn(usize) -> ExpertsSpec + 'a>, Error> {
    if config.whole("num_experts", 0)? == 0 {
        return Ok(None);
    }
    let routing = softmax_routing(config, "num_experts_per_tok", config.flag("norm_topk_prob", true)?)?;
    let routed = Routed::read(config, "moe_intermediate_size", "num_experts", routing)?;
    let shared_inner = config.count("shared_expert_intermediate_size")?;
    Ok(Some(move |index| {
        qwen2_moe::experts(&routed, sizes, shared_inner, index)
    }))
}

/// `q_proj` holds, head by head, the query and the gate of what the head gives.
fn gated_attention(sizes: &Sizes, path: &str, bias: bool) -> AttentionSpec {
    let (heads, head_dim) = (sizes.heads, sizes.head_dim);
    let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
    let attention = sizes.attention(path, names, bias, bias);
    let both = linear(format!("{path}.q_proj"), 2 * heads * head_dim, sizes.hidden, bias);
    AttentionSpec {
        query: both.cut_heads(heads, 2 * head_dim, 0..head_dim),
        gate: Some(GateSpec::new(both.cut_heads(
            heads,
            2 * head_dim,
            head_dim..2 * head_dim,
        ))),
        ..attention
    }
}
