//! ArceeForCausalLM (AFM): Llama with a plain feed-forward block and squared ReLU.

use super::Family;
use super::common::{Differences, Llama};
use super::parts::activation;
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "ArceeForCausalLM",
    model_type: "arcee",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let bias = config.flag("attention_bias", false)?;
    let feed_forward_bias = config.flag("mlp_bias", false)?;
    let activation = activation(config, "hidden_act", "relu2")?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        activation: Some(activation),
        ..Differences::default()
    };
    let defaults = serde_json::json!({"rms_norm_eps": 1e-5});
    let config = config.with_defaults(&defaults);
    let llama = Llama::read(config, differences)?;
    let ropes = vec![read_rope(config, llama.sizes.head_dim)?];
    llama.decoder_of(config, FAMILY.architecture, ropes, |index| {
        let mut layer = llama.layer(index);
        let path = format!("model.layers.{index}.mlp");
        let feed_forward = llama
            .sizes
            .plain(&path, ["up_proj", "down_proj"], feed_forward_bias, activation);
        layer.feed_forward = feed_forward.into();
        Ok(llama.assemble(layer))
    })
}
