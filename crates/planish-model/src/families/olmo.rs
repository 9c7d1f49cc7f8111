//! OlmoForCausalLM: Llama with layer norms that have no weights.

use planish_ops::NormKind;

use super::Family;
use super::common::{Differences, llama_like};
use super::mpt::read_clip;
use crate::config::Config;
use crate::{Architecture, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "OlmoForCausalLM",
    model_type: "olmo",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let clip = read_clip(config)?;
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        ..Differences::default()
    };
    let mut architecture = llama_like(config, FAMILY.architecture, differences, |_, attention| {
        attention.clip = clip;
        Ok(())
    })?;
    let branches = architecture.layers.iter_mut().flat_map(LayerSpec::branches_mut);
    let norms = branches.filter_map(|branch| branch.norm.as_mut());
    norms.chain([&mut architecture.final_norm]).for_each(without_weight);
    Ok(architecture)
}

/// The epsilon is not the config's.
fn without_weight(norm: &mut NormSpec) {
    norm.kind = NormKind::Layer;
    norm.weight = false;
    norm.epsilon = 1e-5;
}
