//! HyperCLOVAXForCausalLM: Granite with norms after the blocks, too; the factor of the logits multiplies.

use super::Family;
use super::granite::granite_like;
use super::parts::epsilon;
use crate::config::Config;
use crate::{Architecture, Error, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "HyperCLOVAXForCausalLM",
    model_type: "hyperclovax",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let (hidden, epsilon) = (config.count("hidden_size")?, epsilon(config, "rms_norm_eps", 1e-6)?);
    let (has_norms, has_scale) = (
        config.flag("use_post_norm", true)?,
        config.value("attention_multiplier").is_some(),
    );
    let mut architecture = granite_like(config, FAMILY.architecture, |index, layer| {
        if !has_scale {
            layer.attention.scale = (layer.attention.head_dim as f32).powf(-0.5);
        }
        let norm = |part: &str| NormSpec::rms(format!("model.layers.{index}.{part}"), hidden, epsilon);
        if has_norms {
            layer.norms[1] = Some(norm("post_norm1"));
            layer.norms[3] = Some(norm("post_norm2"));
        }
        Ok(())
    })?;
    architecture.logits.scale = config.optional_number("logits_scaling")?.unwrap_or(1.0) as f32;
    Ok(architecture)
}
