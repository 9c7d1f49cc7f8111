//! ApertusForCausalLM: Llama with normalized heads and a plain feed-forward block whose non-linearity is learned.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, Llama};
use super::parts::{activation, only};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{ActivationSpec, Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "ApertusForCausalLM",
    model_type: "apertus",
    translate,
};

const NORMS: [Option<&str>; 4] = [Some("attention_layernorm"), None, Some("feedforward_layernorm"), None];

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "rms_norm_eps": 1e-5, "hidden_act": "xielu", "rope_theta": 12_000_000.0, "rope_parameters": {
            "rope_type": "llama3", "rope_theta": 12_000_000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192
        }
    });
    let config = config.with_defaults(&defaults);
    // Switches of the first code of the family, which transformers no longer reads.
    only(config, "post_norm", false)?;
    only(config, "qk_norm", true)?;
    only(config, "mlp_bias", false)?;
    let fixed = match config.optional_text("hidden_act")? {
        Some("xielu") => None,
        _ => Some(activation(config, "hidden_act", "xielu")?),
    };
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        head_norms: HeadNorms::Shared,
        activation: fixed.or(Some(crate::Activation::Silu)),
        norms: NORMS,
        ..Differences::default()
    };
    let llama = Llama::read(config, differences)?;
    let ropes = vec![read_rope(config, llama.sizes.head_dim)?];
    llama.decoder_of(config, FAMILY.architecture, ropes, |index| {
        let path = format!("model.layers.{index}.mlp");
        let activation = match fixed {
            Some(activation) => ActivationSpec::Fixed(activation),
            None => ActivationSpec::Xielu(format!("{path}.act_fn")),
        };
        let mut layer = llama.layer(index);
        layer.feed_forward = llama
            .sizes
            .plain(&path, ["up_proj", "down_proj"], false, activation)
            .into();
        Ok(llama.assemble(layer))
    })
}
