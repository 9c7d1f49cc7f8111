//! The architectures read from GGUF, as data: which Hugging Face model each is, and how tensors are called in both.
//!
//! Source of names: <https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/constants.py>.

use super::fault::Fault;
use super::metadata::Metadata;

/// A row of the table.
#[derive(Debug)]
pub(super) struct Architecture {
    /// `general.architecture`, and the prefix of the metadata keys.
    pub name: &'static str,
    /// `model_type` and `architectures` of config.json.
    pub model_type: &'static str,
    pub class: &'static str,
    /// Query and key rows lie as neighbours.
    pub neighbours: bool,
    /// config.json says whether projections have biases; otherwise the architecture does.
    pub bias_keys: bool,
}

static ARCHITECTURES: [Architecture; 3] = [
    Architecture {
        name: "llama",
        model_type: "llama",
        class: "LlamaForCausalLM",
        neighbours: true,
        bias_keys: true,
    },
    Architecture {
        name: "qwen2",
        model_type: "qwen2",
        class: "Qwen2ForCausalLM",
        neighbours: false,
        bias_keys: false,
    },
    Architecture {
        name: "qwen3",
        model_type: "qwen3",
        class: "Qwen3ForCausalLM",
        neighbours: false,
        bias_keys: false,
    },
];

/// Tensors outside the layers.
const TOP: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Tensors of layer N: `blk.N.` and `model.layers.N.`.
const LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

/// The architecture that a file names.
pub(super) fn of(metadata: &Metadata) -> Result<&'static Architecture, Fault> {
    let key = "general.architecture";
    let name = metadata.need(key, metadata.text(key)?)?;
    ARCHITECTURES
        .iter()
        .find(|architecture| architecture.name == name)
        .ok_or_else(|| {
            let known: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
            Fault::unsupported(format!(
                "GGUF architecture `{name}` is not read; those that are: {}",
                known.join(", ")
            ))
        })
}

/// The architectures, as in config.json, of which GGUF files are read.
pub fn classes() -> impl Iterator<Item = &'static str> {
    ARCHITECTURES.iter().map(|architecture| architecture.class)
}

/// What a tensor of the file is.
#[derive(Debug, PartialEq)]
pub(super) enum Role {
    /// A weight of this Hugging Face name.
    Weight(String),
    /// Rotation factors, which belong in the config.
    RopeFactors,
}

/// The role of a tensor; `None` if no model of these architectures has it.
pub(super) fn role(name: &str) -> Option<Role> {
    if name == "rope_freqs.weight" {
        return Some(Role::RopeFactors);
    }
    let (stem, part) = name.rsplit_once('.')?;
    if !matches!(part, "weight" | "bias") {
        return None;
    }
    let translate = |table: &[(&str, &'static str)], stem: &str| {
        table
            .iter()
            .find(|(stored, _)| *stored == stem)
            .map(|(_, translated)| *translated)
    };
    let translated = match stem.strip_prefix("blk.") {
        None => translate(&TOP, stem)?.to_string(),
        Some(rest) => {
            let (layer, stem) = rest.split_once('.')?;
            let layer: u32 = layer.parse().ok()?;
            format!("model.layers.{layer}.{}", translate(&LAYER, stem)?)
        }
    };
    Some(Role::Weight(format!("{translated}.{part}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_both_worlds() {
        let weight = |name: &str| Some(Role::Weight(name.into()));
        assert_eq!(
            role("blk.12.attn_q.bias"),
            weight("model.layers.12.self_attn.q_proj.bias")
        );
        assert_eq!(role("output.weight"), weight("lm_head.weight"));
        assert_eq!(role("rope_freqs.weight"), Some(Role::RopeFactors));
        for unknown in [
            "blk.0.ffn_gate_exps.weight",
            "blk.x.attn_q.weight",
            "output.scale",
            "output",
            "blk.0",
        ] {
            assert_eq!(role(unknown), None, "{unknown}");
        }
    }
}
