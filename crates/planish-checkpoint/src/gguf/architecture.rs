//! What an architecture is in GGUF, as data: which Hugging Face model it is, how tensors are called in both, and which keys of
//! config.json follow from which metadata. The rows stand in [`super::architectures`].

use serde_json::{Map, Value};

use super::architectures::all;
use super::fault::Fault;
use super::header::Header;
use crate::mlx::Model;

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
    /// Whether this row is for models that correct the scores of experts, or do not; `None` for either.
    pub corrected: Option<bool>,
    /// Whether this row is for models with shared experts, or without; `None` for either.
    pub shared: Option<bool>,
    /// Query and key rows lie as neighbours.
    pub neighbours: bool,
    /// Query, key and value are one tensor, at Hugging Face head by head.
    pub joined_heads: bool,
    /// The query projection holds a gate of the same size, head by head.
    pub gated_queries: bool,
    /// Heads, or feed-forward blocks, may differ from layer to layer.
    pub mixed_layers: bool,
    /// Keys and values come from latent vectors.
    pub latent: bool,
    /// Value heads of delta nets that share a key head lie apart, not side by side.
    pub tiled_heads: bool,
    /// One has been added to the weights of norms.
    pub norms_less_one: bool,
    /// What Hugging Face calls the list of layers.
    pub layers: &'static str,
    /// Names that differ from Llama's, `blk.N.` and the layer left out.
    pub names: &'static [(&'static str, &'static str)],
    /// Names with their endings that differ from Hugging Face's in more than the module, the layer left out.
    pub tensors: &'static [(&'static str, &'static str)],
    /// Tensors of Hugging Face that the file has in parts; under `names` stands what mlx-lm would call these.
    pub parted: Option<&'static Model>,
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
#[derive(Clone, Copy, Debug)]
pub(super) enum Key {
    Count(&'static str, &'static str),
    /// A count that may be 0, with what it is where the file does not say it.
    Whole(&'static str, &'static str, usize),
    Float(&'static str, &'static str),
    FloatOr(&'static str, &'static str, f64),
    Flag(&'static str, &'static str),
    FlagOr(&'static str, &'static str, bool),
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
    /// A kind for each layer: the first of layers with a query projection, the second of the other layers.
    LayerKinds(&'static str, [&'static str; 2]),
    /// Whether the tensor of a layer is there in any.
    Has(&'static str, &'static str),
    /// The last layer that has a tensor.
    LastWith(&'static str, &'static str),
    /// The sizes of latent attention.
    Latent,
    /// Groups of experts, and how they are chosen.
    Groups,
    /// Sizes of the heads of a delta net.
    DeltaNet,
    /// Sizes of the heads of Mamba 2, by the words of hybrids.
    Mamba2,
    /// Whether layers rotate, as text.
    Positions(&'static str),
    /// What Gemma 4 says by kind of layer.
    Gemma4,
    /// YaRN's bounds are not rounded to whole dimensions.
    Untruncated,
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
pub(super) fn of(header: &Header) -> Result<&'static Architecture, Fault> {
    let metadata = &header.metadata;
    let key = "general.architecture";
    let name = metadata.need(key, metadata.text(key)?)?;
    let positive = |key: &str| -> Result<bool, Fault> {
        let count = metadata.uniform_count(&format!("{name}.{key}"))?;
        Ok(count.is_some_and(|count| count > 0))
    };
    let has_experts = positive("expert_count")?;
    let has_window = positive("attention.sliding_window")?;
    let is_corrected = header
        .tensors
        .iter()
        .any(|tensor| tensor.name.contains(".exp_probs_b."));
    let is_shared = header.has_in_layers("ffn_up_shexp.weight");
    let named = all().filter(|architecture| architecture.name == name);
    let mut fitting = named.clone().filter(|architecture| {
        architecture.has_experts() == has_experts
            && architecture.windowed.is_none_or(|windowed| windowed == has_window)
            && architecture.corrected.is_none_or(|corrected| corrected == is_corrected)
            && architecture.shared.is_none_or(|shared| shared == is_shared)
    });
    // A row that does not fit says better what is wrong.
    fitting.next().or(named.clone().next()).ok_or_else(|| {
        let mut known: Vec<&str> = all().map(|architecture| architecture.name).collect();
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
    let found = class.and_then(|class| all().find(|architecture| architecture.class == class));
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
    all().map(|architecture| architecture.class)
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
    /// Whether the row is for models with experts.
    pub fn has_experts(&self) -> bool {
        self.experts.is_some() || self.names.iter().any(|(stored, _)| *stored == STACKS[2])
    }

    /// Whether heads of some layers have other sizes than those of others.
    pub fn heads_differ(&self) -> bool {
        self.keys.iter().any(|key| matches!(key, Key::Gemma4))
    }

    /// The role of a tensor; `None` if no model of the architecture has it.
    pub fn role(&self, name: &str) -> Option<Role> {
        match name {
            "rope_freqs.weight" => return Some(Role::RopeFactors),
            "rope_factors_long.weight" => return Some(Role::LongFactors),
            "rope_factors_short.weight" => return Some(Role::ShortFactors),
            _ => {}
        }
        if let Some((layer, rest)) = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'))
            && let Some((_, found)) = self.tensors.iter().find(|(stored, _)| *stored == rest)
        {
            let layer: u32 = layer.parse().ok()?;
            return Some(Role::Weight(format!("{}.{layer}.{found}", self.layers)));
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
        all().find(|architecture| architecture.class == class).unwrap()
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
