//! Olmo3ForCausalLM: OLMo 2 with a window in three layers of four; the scaling of positions is for the others only.

use serde_json::json;

use super::Family;
use super::common::Llama;
use super::olmo2::differences;
use super::parts::window_of_layer;
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Olmo3ForCausalLM",
    model_type: "olmo3",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5, "rope_theta": 500000.0, "sliding_window": 4096});
    let config = config.with_defaults(&defaults);
    let llama = Llama::read(config, differences(config)?)?;
    let ropes = vec![
        read_rope_of_kind(config, "full_attention", "rope_theta", llama.sizes.head_dim)?,
        read_rope_of_kind(config, "sliding_attention", "rope_theta", llama.sizes.head_dim)?,
    ];
    let window = config.optional_count("sliding_window")?;
    let slides = |index: usize| !(index + 1).is_multiple_of(4);
    llama.decoder(config, FAMILY.architecture, ropes, |index, attention| {
        attention.window = window_of_layer(config, window, slides, index)?;
        attention.rope = Some(usize::from(attention.window.is_some()));
        Ok(())
    })
}
