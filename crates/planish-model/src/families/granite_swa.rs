//! GraniteSWAForCausalLM and GraniteMoeSWAForCausalLM: Granite with windows, sinks, and a base of rotation for each layer.

use serde_json::json;

use super::Family;
use super::common::LlamaLayer;
use super::granite::granite_like;
use super::granitemoeshared::read_shared;
use super::parts::window_of_layer;
use crate::config::Config;
use crate::{Architecture, Error, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "GraniteSWAForCausalLM",
    model_type: "granite_swa",
    translate: |config| {
        let defaults = json!({
            "rms_norm_eps": 1e-5, "num_key_value_heads": 4, "tie_word_embeddings": true, "sliding_window": 128
        });
        decoder(config.with_defaults(&defaults), FAMILY.architecture, |_, _| Ok(()))
    },
};

pub(super) const EXPERTS_FAMILY: Family = Family {
    architecture: "GraniteMoeSWAForCausalLM",
    model_type: "granitemoe_swa",
    translate: |config| {
        let defaults = json!({"sliding_window": 128});
        let config = config.with_defaults(&defaults);
        let block = read_shared(config)?;
        decoder(config, EXPERTS_FAMILY.architecture, |index, layer| {
            layer.feed_forward = block(index)?;
            Ok(())
        })
    },
};

fn decoder(
    config: Config<'_>,
    name: &str,
    adapt: impl Fn(usize, &mut LlamaLayer) -> Result<(), Error>,
) -> Result<Architecture, Error> {
    let window = config.optional_count("sliding_window")?;
    let bases = read_bases(config)?;
    let mut distinct: Vec<f64> = Vec::new();
    for &base in bases.iter().flatten().filter(|&&base| base != 0.0) {
        if !distinct.contains(&base) {
            distinct.push(base);
        }
    }
    let mut architecture = granite_like(config, name, |index, layer| {
        let attention = &mut layer.attention;
        attention.window = window_of_layer(config, window, |index| !index.is_multiple_of(4), index)?;
        attention.sinks = Some(format!("model.layers.{index}.self_attn.sinks"));
        if let Some(bases) = &bases {
            attention.rope = distinct.iter().position(|&base| base == bases[index]);
        }
        adapt(index, layer)
    })?;
    if bases.is_some() {
        let rope = architecture.ropes.remove(0);
        let of_base = |theta| RopeSpec { theta, ..rope.clone() };
        architecture.ropes = distinct.into_iter().map(of_base).collect();
    }
    Ok(architecture)
}

/// The base of each layer, 0 where nothing is rotated.
fn read_bases(config: Config<'_>) -> Result<Option<Vec<f64>>, Error> {
    const KEY: &str = "layer_rope_theta";
    let Some(bases) = config.numbers(KEY)? else {
        return Ok(None);
    };
    let fits = bases.len() >= config.layers("num_hidden_layers")?;
    match fits
        && bases
            .iter()
            .all(|&base| base == 0.0 || (base.is_finite() && base > 1.0))
    {
        true => Ok(Some(bases)),
        false => Err(config.error(KEY, "a number above 1, or 0, for every layer")),
    }
}
