//! Phi3ForCausalLM (Phi 3, 3.5 and 4, mini and medium): Llama with query, key and value in one layer, gate and up in another,
//! and short and long factors for its rotation.

use serde_json::json;

use super::Family;
use super::common::{Differences, llama_like};
use super::parts::{linear, only};
use crate::config::Config;
use crate::{Architecture, Error, RopeScaling};

pub(super) const FAMILY: Family = Family {
    architecture: "Phi3ForCausalLM",
    model_type: "phi3",
    translate: |config| {
        let defaults = json!({
            "rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096, "partial_rotary_factor": 1.0
        });
        decoder(config.with_defaults(&defaults), FAMILY.architecture)
    },
};

/// The text part: adapters for images and sound are not read.
pub(super) const PHI4_FAMILY: Family = Family {
    architecture: "Phi4MultimodalForCausalLM",
    model_type: "phi4_multimodal",
    translate: |config| {
        let defaults = json!({
            "rms_norm_eps": 1e-5, "original_max_position_embeddings": 4096, "partial_rotary_factor": 1.0,
            "num_key_value_heads": 8
        });
        decoder(config.with_defaults(&defaults), PHI4_FAMILY.architecture)
    },
};

fn decoder(config: Config<'_>, name: &str) -> Result<Architecture, Error> {
    // Switches of the family's own code, which transformers does not read: no released checkpoint has them on.
    for key in ["attention_bias", "mlp_bias", "lm_head_bias"] {
        only(config, key, false)?;
    }
    let differences = Differences {
        fused_gate: true,
        ..Differences::default()
    };
    let window = config.optional_count("sliding_window")?;
    let architecture = llama_like(config, name, differences, |index, attention| {
        let (query_rows, key_rows) = (attention.query.rows, attention.key.rows);
        let path = format!("model.layers.{index}.self_attn.qkv_proj");
        let fused = linear(path, query_rows + 2 * key_rows, attention.query.cols, false);
        attention.query = fused.cut_run(0, query_rows);
        attention.key = fused.cut_run(query_rows, key_rows);
        attention.value = fused.cut_run(query_rows + key_rows, key_rows);
        attention.window = window;
        Ok(())
    })?;
    match architecture.ropes[0].scaling {
        RopeScaling::Default | RopeScaling::LongRope { .. } => Ok(architecture),
        _ => Err(config.error("rope_parameters", "the type default or longrope")),
    }
}
