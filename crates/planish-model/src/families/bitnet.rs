//! BitNetForCausalLM: Llama with norms inside of its blocks. Weights of three values whose inputs are rounded to 8 bits
//! (`quantization_config`) are another model.

use serde_json::json;

use super::Family;
use super::common::{Differences, adapted_layers};
use super::parts::refuse;
use crate::config::Config;
use crate::{Architecture, BlockSpec, Error, FeedForwardSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "BitNetForCausalLM",
    model_type: "bitnet",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "num_key_value_heads": 5, "hidden_act": "relu2", "rope_theta": 500000.0
    });
    let config = config.with_defaults(&defaults);
    if let Some(quantization) = config.object("quantization_config")?
        && quantization.optional_text("quant_method")? == Some("bitnet")
    {
        refuse(config, "quantization_config")?;
    }
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        ..Differences::default()
    };
    adapted_layers(config, FAMILY.architecture, differences, |sizes, index, layer| {
        let norm = |part: &str, size| NormSpec {
            name: format!("model.layers.{index}.{part}"),
            ..NormSpec::rms("", size, config.number("rms_norm_eps").unwrap_or_default() as f32)
        };
        layer.attention.output_norm = Some(norm("self_attn.attn_sub_norm", sizes.hidden));
        if let BlockSpec::FeedForward(block) = &mut layer.feed_forward
            && let FeedForwardSpec::Gated { norm: inner, .. } = &mut **block
        {
            *inner = Some(norm("mlp.ffn_sub_norm", sizes.intermediate));
        }
        Ok(())
    })
}
