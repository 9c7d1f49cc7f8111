//! What an architecture is in GGUF, as data: which Hugging Face model it is, how tensors are called in both, and which keys of
//! config.json follow from which metadata. The rows stand in [`super::architectures`].

use serde_json::{Map, Value};

use super::architectures::ARCHITECTURES;
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
    /// Whether this row is for models with a sliding window, or without; `None` for either.
    pub windowed: Option<bool>,
    /// Query and key rows lie as neighbours.
    pub neighbours: bool,
    /// Query, key and value are one tensor, at Hugging Face head by head.
    pub joined_heads: bool,
    /// One has been added to the weights of norms.
    pub norms_less_one: bool,
    /// What Hugging Face calls the list of layers.
    pub layers: &'static str,
    /// Names that differ from Llama's, `blk.N.` and the layer left out.
    pub names: &'static [(&'static str, &'static str)],
    /// The names of experts. A row with experts is for models that have some.
    pub experts: Option<Experts>,
    /// Layers that Hugging Face stores as (cols, rows).
    pub transposed: &'static [&'static str],
    /// Which norm the model has.
    pub epsilon: Epsilon,
    /// What config.json says beyond a Llama's.
    pub keys: &'static [Key],
}

/// Stacks of experts, which Hugging Face stores one by one.
#[derive(Debug)]
pub(super) struct Experts {
    pub router: &'static str,
    /// Before the number of an expert.
    pub path: &'static str,
    /// Gate, up and down.
    pub parts: [&'static str; 3],
}

/// The key of config.json for the norms' epsilon.
#[derive(Debug)]
pub(super) enum Epsilon {
    Rms(&'static str),
    Layer(&'static str),
}

/// Where a key of config.json comes from: metadata first (the architecture's prefix left out), then the key.
#[derive(Debug)]
pub(super) enum Key {
    Count(&'static str, &'static str),
    Float(&'static str, &'static str),
    FloatOr(&'static str, &'static str, f64),
    Flag(&'static str, &'static str),
    Set(&'static str, Literal),
    /// The part of a head that is rotated.
    RotatedPart(&'static str),
    /// The sliding window, of which 0 means none.
    Window,
    /// Every n-th layer sees all positions, the others the window, unless metadata says otherwise.
    LayerTypes(usize),
    /// Gemma's scale of queries: the head size, but hidden size by heads in the model with this many layers.
    QueryScale(usize),
    /// Every n-th layer is not rotated.
    NoRotation(usize),
    /// Whether tensors are there.
    AttentionBias(&'static str),
    OutputBias(&'static str),
    FeedForwardBias(&'static str),
    QueryNorm(&'static str),
    /// Another name for a key of Llama.
    Rename(&'static str, &'static str),
}

/// A value that the architecture has always.
#[derive(Clone, Copy, Debug)]
pub(super) enum Literal {
    Text(&'static str),
    Flag(bool),
    Null,
}

/// Tensors outside the layers.
pub(super) const TOP: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];

/// Tensors of layer N: `blk.N.` and `model.layers.N.`.
pub(super) const LAYER: [(&str, &str); 11] = [
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

/// Stacks of experts, in the order of [`Experts::parts`].
const STACKS: [&str; 3] = ["ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"];

/// The architecture that a file names.
pub(super) fn of(metadata: &Metadata) -> Result<&'static Architecture, Fault> {
    let key = "general.architecture";
    let name = metadata.need(key, metadata.text(key)?)?;
    let positive = |key: &str| -> Result<bool, Fault> {
        let count = metadata.uniform_count(&format!("{name}.{key}"))?;
        Ok(count.is_some_and(|count| count > 0))
    };
    let has_experts = positive("expert_count")?;
    let has_window = positive("attention.sliding_window")?;
    let named = ARCHITECTURES.iter().filter(|architecture| architecture.name == name);
    let mut fitting = named.clone().filter(|architecture| {
        architecture.experts.is_some() == has_experts
            && architecture.windowed.is_none_or(|windowed| windowed == has_window)
    });
    // A row that does not fit says better what is wrong.
    fitting.next().or(named.clone().next()).ok_or_else(|| {
        let mut known: Vec<&str> = ARCHITECTURES.iter().map(|architecture| architecture.name).collect();
        known.dedup();
        Fault::unsupported(format!(
            "GGUF architecture `{name}` is not read; those that are: {}",
            known.join(", ")
        ))
    })
}

/// The architecture of a checkpoint with this config.json.
pub(super) fn of_config(config: &Map<String, Value>) -> Result<&'static Architecture, Fault> {
    let class = config.get("architectures").and_then(|names| names.get(0)?.as_str());
    let found = class.and_then(|class| ARCHITECTURES.iter().find(|architecture| architecture.class == class));
    found.ok_or_else(|| {
        let known: Vec<&str> = classes().collect();
        Fault::unsupported(format!(
            "names of the architecture `{}` are not known in GGUF; known are {}",
            class.unwrap_or_default(),
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
    /// A stack of experts: what stands before the number of each and what behind it.
    Experts { before: String, after: String },
    /// Rotation factors, which belong in the config.
    RopeFactors,
    /// Those of longrope, beyond the original context.
    LongFactors,
    /// Those of longrope, within it.
    ShortFactors,
}

impl Architecture {
    /// The role of a tensor; `None` if no model of the architecture has it.
    pub fn role(&self, name: &str) -> Option<Role> {
        match name {
            "rope_freqs.weight" => return Some(Role::RopeFactors),
            "rope_factors_long.weight" => return Some(Role::LongFactors),
            "rope_factors_short.weight" => return Some(Role::ShortFactors),
            _ => {}
        }
        let (stem, part) = name.rsplit_once('.')?;
        if !matches!(part, "weight" | "bias") {
            return None;
        }
        let Some(rest) = stem.strip_prefix("blk.") else {
            let translated = self.translated(&TOP, stem)?;
            return Some(Role::Weight(format!("{translated}.{part}")));
        };
        let (layer, stem) = rest.split_once('.')?;
        let layer: u32 = layer.parse().ok()?;
        let layer = format!("{}.{layer}", self.layers);
        if let Some(experts) = &self.experts {
            if stem == "ffn_gate_inp" {
                return Some(Role::Weight(format!("{layer}.{}.{part}", experts.router)));
            }
            if let Some(position) = STACKS.iter().position(|stack| *stack == stem) {
                return Some(Role::Experts {
                    before: format!("{layer}.{}.", experts.path),
                    after: format!(".{}.{part}", experts.parts[position]),
                });
            }
        }
        Some(Role::Weight(format!(
            "{layer}.{}.{part}",
            self.translated(&LAYER, stem)?
        )))
    }

    fn translated(&self, common: &'static [(&str, &str)], stem: &str) -> Option<&'static str> {
        let found = self.names.iter().chain(common).find(|(stored, _)| *stored == stem);
        found.map(|(_, translated)| *translated)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn architecture(class: &str) -> &'static Architecture {
        ARCHITECTURES
            .iter()
            .find(|architecture| architecture.class == class)
            .unwrap()
    }

    #[test]
    fn names_in_both_worlds() {
        let llama = architecture("LlamaForCausalLM");
        let weight = |name: &str| Some(Role::Weight(name.into()));
        assert_eq!(
            llama.role("blk.12.attn_q.bias"),
            weight("model.layers.12.self_attn.q_proj.bias")
        );
        assert_eq!(llama.role("output.weight"), weight("lm_head.weight"));
        assert_eq!(llama.role("rope_freqs.weight"), Some(Role::RopeFactors));
        for unknown in [
            "blk.0.ffn_gate_exps.weight",
            "blk.x.attn_q.weight",
            "output.scale",
            "output",
            "blk.0",
        ] {
            assert_eq!(llama.role(unknown), None, "{unknown}");
        }
        let stack = architecture("MixtralForCausalLM").role("blk.3.ffn_up_exps.weight");
        let (before, after) = ("model.layers.3.block_sparse_moe.experts.".into(), ".w3.weight".into());
        assert_eq!(stack, Some(Role::Experts { before, after }));
    }
}
