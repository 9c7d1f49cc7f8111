//! Exaone4ForCausalLM: Llama with norms after the blocks, normalized heads, and windows: then layers without one rotate
//! nothing.

use serde_json::json;

use super::Family;
use super::common::{Differences, HeadNorms, llama_like};
use super::olmo2::NORMS;
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Architecture, AttentionSpec, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "Exaone4ForCausalLM",
    model_type: "exaone4",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5, "sliding_window": 4096, "num_key_value_heads": 32});
    let config = config.with_defaults(&defaults);
    let differences = Differences {
        head_norms: HeadNorms::Shared,
        norms: NORMS,
        ..Differences::default()
    };
    llama_like(config, FAMILY.architecture, differences, |index, attention| {
        see(config, index, attention)
    })
}

/// What a layer sees: a window or everything, without rotation beside layers with windows.
pub(super) fn see(config: Config<'_>, index: usize, attention: &mut AttentionSpec) -> Result<(), Error> {
    let window = config.optional_count("sliding_window")?;
    let slides = match window {
        Some(_) => pattern(config)?,
        None => vec![false],
    };
    attention.window = window_of_layer(config, window, |index| slides[index % slides.len()], index)?;
    if window.is_some() && attention.window.is_none() {
        attention.rope = None;
    }
    Ok(())
}

/// `sliding_window_pattern`, for configs without `layer_types`: the length of a run whose last layer sees all, or a text like
/// LLLG. A text of a run that does not end so is refused: it would have an exception for the last layer of all.
fn pattern(config: Config<'_>) -> Result<Vec<bool>, Error> {
    const KEY: &str = "sliding_window_pattern";
    let text = config.value(KEY).and_then(|value| value.as_str());
    match text {
        Some(text) if text.ends_with('G') && text.chars().all(|kind| matches!(kind, 'L' | 'G')) => {
            Ok(text.chars().map(|kind| kind == 'L').collect())
        }
        Some(_) => Err(config.error(KEY, "a text of L and G that ends with G, or a positive whole number")),
        None => {
            let length = config.optional_count(KEY)?.unwrap_or(4);
            Ok((1..=length).map(|layer| layer < length).collect())
        }
    }
}
