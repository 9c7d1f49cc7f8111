//! BambaForCausalLM: layers of Mamba 2, some of attention.

use serde_json::json;

use super::Family;
use super::mamba2::{Factors, Mamba2};
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, BlockSpec, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "BambaForCausalLM",
    model_type: "bamba",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_key_value_heads": 8, "rms_norm_eps": 1e-5, "partial_rotary_factor": 0.5});
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::read(config, 0)?;
    let mamba = Mamba2::read(config, sizes.hidden, None)?;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let (attention_bias, bias) = (config.flag("attention_bias", false)?, config.flag("mlp_bias", false)?);
    let attends = config.numbers("attn_layer_indices")?.unwrap_or_default();
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| NormSpec::rms(path(part), sizes.hidden, epsilon);
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        let mixer: BlockSpec = match attends.contains(&(index as f64)) {
            true => sizes
                .attention(&path("self_attn"), names, attention_bias, attention_bias)
                .into(),
            false => {
                let gated_norm = mamba.norm(&path("mamba"), epsilon);
                let bias = mamba.input_bias;
                mamba.layer(&path("mamba"), Factors::ONE, Some(gated_norm), bias).into()
            }
        };
        let names = ["gate_proj", "up_proj", "down_proj"];
        let feed_forward = sizes.gated(&path("feed_forward"), names, bias, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm("input_layernorm"), mixer),
            BranchSpec::new(norm("pre_ff_layernorm"), feed_forward.into()),
        ]))
    };
    let final_norm = NormSpec::rms("model.final_layernorm", sizes.hidden, epsilon);
    let head = sizes.head(config, "lm_head", false)?;
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}
