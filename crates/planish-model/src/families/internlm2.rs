//! InternLM2ForCausalLM: Llama under names of its own, with query, key and value in one layer, grouped by key head.

use super::Family;
use super::parts::{Sizes, activation, epsilon, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{Architecture, BranchSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "InternLM2ForCausalLM",
    model_type: "internlm2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let sizes = Sizes::read(config, 0)?;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-6)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let bias = config.flag("bias", true)?;
    let norm = |name: String| NormSpec::rms(name, sizes.hidden, epsilon);
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let fused = linear(path("attention.wqkv"), sizes.fused_rows(), sizes.hidden, bias);
        let output = linear(path("attention.wo"), sizes.hidden, sizes.heads * sizes.head_dim, bias);
        let attention = sizes.attention_of(sizes.split_groups(&fused), output);
        let feed_forward = sizes.gated(&path("feed_forward"), ["w1", "w3", "w2"], false, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("attention_norm")), attention.into()),
            BranchSpec::new(norm(path("ffn_norm")), feed_forward.into()),
        ]))
    };
    let head = sizes.head(config, "output", false)?;
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(
            FAMILY.architecture,
            "model.tok_embeddings",
            layer,
            norm("model.norm".to_owned()),
            head,
        )?
    })
}
