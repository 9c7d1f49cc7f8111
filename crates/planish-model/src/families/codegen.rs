//! CodeGenForCausalLM: GPT-J with query, value and key in one layer, in four parts as it was trained on four chips.

use super::Family;
use super::gptj::gptj_like;
use super::parts::linear;
use crate::config::Config;
use crate::{Architecture, Error};

pub(super) const FAMILY: Family = Family {
    architecture: "CodeGenForCausalLM",
    model_type: "codegen",
    translate,
};

const PARTS: usize = 4;

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    if !config.count("n_head")?.is_multiple_of(PARTS) {
        return Err(config.error("n_head", "a multiple of 4"));
    }
    gptj_like(config, FAMILY.architecture, |sizes, path| {
        let fused = linear(format!("{path}.qkv_proj"), 3 * sizes.hidden, sizes.hidden, false);
        let rows = sizes.hidden / PARTS;
        let [query, value, key] =
            [0, 1, 2].map(|part| fused.cut_heads(PARTS, 3 * rows, part * rows..(part + 1) * rows));
        [query, key, value]
    })
}
