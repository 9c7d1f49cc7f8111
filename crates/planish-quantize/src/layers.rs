//! What kind of layer a tensor belongs to, judged by its name and shape alone.
//!
//! transformers and mlx-lm ask the class of a module; a checkpoint only has names. The rules here give the same answer as both
//! libraries for the architectures of tests/golden/layers.json.

use std::collections::HashSet;

use planish_checkpoint::Entry;
use serde_json::{Map, Value};

/// The class of a module that owns a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// `nn.Linear`.
    Linear,
    /// `nn.Embedding`.
    Embedding,
    /// The last projection, from features to the vocabulary or to classes.
    Head,
    /// The projection that chooses experts; transformers has a class of its own for it.
    Router,
    /// One of the projections of an expert; transformers fuses all experts into one 3-D parameter.
    Expert,
    /// A matrix stored transposed (`Conv1D` of the GPT-2 family).
    Transposed,
    /// A norm, a bias, a convolution, a table: never packed.
    Other,
}

impl Role {
    /// Whether mlx-lm packs this kind of layer.
    pub(crate) fn is_layer(self) -> bool {
        !matches!(self, Role::Transposed | Role::Other)
    }
}

/// Architectures whose projections are `Conv1D`: (in, out) instead of (out, in).
const CONV1D_MODELS: [&str; 4] = ["gpt2", "openai-gpt", "imagegpt", "decision_transformer"];
const CONV1D_LAYERS: [&str; 4] = ["c_attn", "c_proj", "c_fc", "q_attn"];
const EMBEDDINGS: [&str; 8] = [
    "wte",
    "wpe",
    "shared",
    "relative_attention_bias",
    "word_embedding",
    "lang_emb",
    "emb",
    "pos_emb",
];
const HEADS: [&str; 5] = ["lm_head", "embed_out", "output_projection", "score", "output"];

/// Classifies the entries of one checkpoint.
pub(crate) struct Classifier {
    conv1d: bool,
    expert_blocks: HashSet<String>,
}

impl Classifier {
    pub(crate) fn new(config: &Map<String, Value>, entries: &[Entry]) -> Classifier {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let block = |entry: &Entry| {
            let before = entry
                .name
                .split_once(".experts.")
                .or_else(|| entry.name.split_once(".switch_mlp."))?
                .0;
            Some(before.to_owned())
        };
        Classifier {
            conv1d: CONV1D_MODELS.contains(&model_type),
            expert_blocks: entries.iter().filter_map(block).collect(),
        }
    }

    pub(crate) fn role(&self, entry: &Entry) -> Role {
        let Some(module) = entry.name.strip_suffix(".weight") else {
            return Role::Other;
        };
        let (parent, last) = module.rsplit_once('.').unwrap_or(("", module));
        let is_expert = module.split('.').any(|part| part == "experts" || part == "switch_mlp");
        match entry.shape.len() {
            3 if is_expert => return Role::Expert,
            2 => {}
            _ => return Role::Other,
        }
        if is_embedding(last) {
            Role::Embedding
        } else if HEADS.contains(&last) && is_top_level(parent) {
            Role::Head
        } else if self.conv1d && CONV1D_LAYERS.contains(&last) {
            Role::Transposed
        } else if is_expert {
            Role::Expert
        } else if matches!(last, "gate" | "router") && self.expert_blocks.contains(parent) {
            Role::Router
        } else if last.contains("norm") || last.starts_with("ln_") {
            Role::Other
        } else {
            Role::Linear
        }
    }
}

fn is_embedding(last: &str) -> bool {
    let named = ["embeddings", "embedding", "embed", "embeds"]
        .iter()
        .any(|end| last.ends_with(end));
    (named || last.starts_with("embed_") || EMBEDDINGS.contains(&last)) && last != "embed_out"
}

/// Heads sit beside the body of a model, not inside a layer.
fn is_top_level(parent: &str) -> bool {
    !parent
        .split('.')
        .any(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
}
