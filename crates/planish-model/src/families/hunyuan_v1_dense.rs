//! HunYuanDenseV1ForCausalLM: Llama with heads normalized after rotation, and a base that `alpha` raises at any length.

use serde_json::json;

use super::Family;
use super::common::{Differences, Llama};
use super::parts::{Sizes, epsilon, only};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, BlockSpec, Error, NormSpec, RopeScaling, RopeSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "HunYuanDenseV1ForCausalLM",
    model_type: "hunyuan_v1_dense",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rms_norm_eps": 1e-5});
    hunyuan_like(config.with_defaults(&defaults), FAMILY.architecture, |_, _| None)
}

/// A decoder of the HunYuan kind with other blocks in place of the feed-forward blocks of the layers that have some.
pub(super) fn hunyuan_like(
    config: Config<'_>,
    name: &str,
    replacement: impl Fn(&Sizes, usize) -> Option<BlockSpec>,
) -> Result<Architecture, Error> {
    only(config, "use_qk_norm", true)?;
    only(config, "use_cla", false)?;
    let bias = config.flag("attention_bias", false)?;
    let differences = Differences {
        query_bias: bias,
        output_bias: bias,
        ..Differences::default()
    };
    let llama = Llama::read(config, differences)?;
    let head_dim = llama.sizes.head_dim;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-5)?;
    let rope = raise_base(config, read_rope(config, head_dim)?)?;
    llama.decoder_of(config, name, vec![rope], |index| {
        let norm = |part| NormSpec::rms(format!("model.layers.{index}.self_attn.{part}"), head_dim, epsilon);
        let mut layer = llama.layer(index);
        layer.attention.query_norm = Some(norm("query_layernorm"));
        layer.attention.key_norm = Some(norm("key_layernorm"));
        layer.attention.norm_after_rope = true;
        if let Some(block) = replacement(&llama.sizes, index) {
            layer.feed_forward = block;
        }
        Ok(llama.assemble(layer))
    })
}

/// The dynamic scaling with an `alpha` does not depend on the length: the base is `theta * alpha^(d / (d - 2))`.
fn raise_base(config: Config<'_>, rope: RopeSpec) -> Result<RopeSpec, Error> {
    let parameters = config.object("rope_scaling")?.or(config.object("rope_parameters")?);
    let alpha = match parameters {
        Some(parameters) => parameters.optional_number("alpha")?.filter(|&alpha| alpha != 0.0),
        None => None,
    };
    let (RopeScaling::Dynamic { .. }, Some(alpha)) = (&rope.scaling, alpha) else {
        return Ok(rope);
    };
    let rotated = rope.rotated as f64;
    Ok(RopeSpec {
        theta: rope.theta * alpha.powf(rotated / (rotated - 2.0)),
        scaling: RopeScaling::Default,
        ..rope
    })
}
