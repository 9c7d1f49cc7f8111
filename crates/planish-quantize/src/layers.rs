//! What kind of layer a tensor belongs to, judged by its name and shape alone: the rule for every checkpoint, also of models
//! that planish cannot run.
//!
//! transformers and mlx-lm ask the class of a module; a checkpoint only has names. A tensor `P.weight` of two dimensions is a
//! linear layer, unless the last word of P (numbers skipped) says otherwise, in this order:
//!
//! 1. it names a table: `..embed`, `..embedding(s)`, `embed_..`, `.._token(s)`, or one of [`EMBEDDINGS`];
//! 2. it names the projection to the vocabulary, beside the body and not in a numbered layer: [`HEADS`]. In models for CTC
//!    transformers does not count `lm_head` as such;
//! 3. it is a `Conv1D` of the GPT-2 family, stored transposed;
//! 4. it lies under `experts` or `switch_mlp`, or is a 3-D stack of experts: an expert;
//! 5. it is `gate`, `router` or `router.layer` beside experts: a router;
//! 6. it names a norm: `..norm..`, `ln_..`.
//!
//! tests/choice.rs compares this with the choice of both libraries for the architectures of tests/golden/layers.

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
    /// A router that transformers packs and cannot load again: it renames the weight as it loads, and not the scales.
    LinearRouter,
    /// One of the projections of an expert; transformers fuses all experts into one 3-D parameter.
    Expert,
    /// A matrix stored transposed (`Conv1D` of the GPT-2 family).
    Transposed,
    /// A linear layer that transformers keeps in f32.
    LinearF32,
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
const HEADS: [&str; 8] = [
    "lm_head",
    "generator_lm_head",
    "lm_heads",
    "embed_out",
    "output_projection",
    "score",
    "output",
    // The last module of the CLIP family, which transformers spares as it spares a head.
    "text_projection",
];
/// Heads that are usually tied to the embeddings, so that most checkpoints lack them: what they lie in, and their names.
pub(crate) const TIED_HEADS: [(&str, &str); 7] = [
    ("predictions", "decoder"),
    ("lm_head", "decoder"),
    ("pred_layer", "proj"),
    ("", "vocab_projector"),
    ("", "lm_loss"),
    ("", "decoder"),
    ("", "proj_out"),
];
/// 3-D stacks of experts that do not lie under `experts`.
const STACKS: [&str; 2] = ["input_linear", "output_linear"];

/// Classifies the entries of one checkpoint.
pub(crate) struct Classifier {
    conv1d: bool,
    /// The router is an ordinary linear layer to transformers.
    linear_router: bool,
    /// `lm_head` maps speech frames to letters, and is an ordinary linear layer to transformers.
    ctc: bool,
    expert_blocks: HashSet<String>,
}

impl Classifier {
    pub(crate) fn new(config: &Map<String, Value>, entries: &[Entry]) -> Classifier {
        let model_type = config.get("model_type").and_then(Value::as_str).unwrap_or_default();
        let class = config.get("architectures").and_then(|names| names.get(0)?.as_str());
        Classifier {
            conv1d: CONV1D_MODELS.contains(&model_type),
            linear_router: model_type == "phimoe",
            ctc: class.is_some_and(|class| class.ends_with("ForCTC")),
            expert_blocks: entries.iter().filter_map(expert_block).collect(),
        }
    }

    pub(crate) fn role(&self, entry: &Entry) -> Role {
        let is_expert = is_expert(entry);
        let Some(module) = entry.name.strip_suffix(".weight") else {
            let is_stack = is_expert && entry.shape.len() == 3;
            return if is_stack { Role::Expert } else { Role::Other };
        };
        let (parent, last) = last_word(module);
        match entry.shape.len() {
            3 if is_expert => return Role::Expert,
            2 => {}
            _ => return Role::Other,
        }
        if is_table(last) {
            Role::Embedding
        } else if is_head(parent, last) {
            if self.ctc && last == "lm_head" {
                Role::Linear
            } else {
                Role::Head
            }
        } else if self.conv1d && CONV1D_LAYERS.contains(&last) {
            Role::Transposed
        } else if is_expert {
            Role::Expert
        } else if self.is_router(parent, last) {
            if self.linear_router {
                Role::LinearRouter
            } else {
                Role::Router
            }
        } else if last.contains("norm") || last.starts_with("ln_") {
            Role::Other
        } else if last == "wo" && parent.ends_with("DenseReluDense") {
            // transformers keeps these of the T5 family in f32.
            Role::LinearF32
        } else {
            Role::Linear
        }
    }

    fn is_router(&self, parent: &str, last: &str) -> bool {
        match last {
            "gate" | "router" => self.expert_blocks.contains(parent),
            "layer" => parent
                .strip_suffix(".router")
                .is_some_and(|block| self.expert_blocks.contains(block)),
            _ => false,
        }
    }
}

/// The module whose experts a tensor is of.
fn expert_block(entry: &Entry) -> Option<String> {
    let name = &entry.name;
    let before = name
        .split_once(".experts.")
        .or_else(|| name.split_once(".switch_mlp."))
        .map(|(before, _)| before);
    let before = before.or_else(|| {
        let (parent, last) = last_word(name.strip_suffix(".weight")?);
        (entry.shape.len() == 3 && STACKS.contains(&last)).then_some(parent)
    });
    before.map(str::to_owned)
}

fn is_expert(entry: &Entry) -> bool {
    let module = entry.name.strip_suffix(".weight").unwrap_or(&entry.name);
    module.split('.').any(|part| part == "experts" || part == "switch_mlp")
        || (entry.shape.len() == 3 && STACKS.contains(&last_word(module).1))
}

/// What comes before the last word of a path that is not a number, and that word.
fn last_word(module: &str) -> (&str, &str) {
    let (parent, last) = module.rsplit_once('.').unwrap_or(("", module));
    if is_number(last) && !parent.is_empty() {
        let (above, word) = parent.rsplit_once('.').unwrap_or(("", parent));
        // Of a plain list of layers the list says nothing.
        if is_table(word) || HEADS.contains(&word) {
            return (above, word);
        }
    }
    (parent, last)
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_table(last: &str) -> bool {
    let named = ["embeddings", "embedding", "embed", "embeds", "_token", "_tokens"]
        .iter()
        .any(|end| last.ends_with(end));
    (named || last.starts_with("embed_") || EMBEDDINGS.contains(&last)) && last != "embed_out" && last != "embed_q"
}

/// Heads sit beside the body of a model, not inside a layer. RWKV's is `head`, a word that others use otherwise.
fn is_head(parent: &str, last: &str) -> bool {
    let beside_the_body = !parent.split('.').any(is_number);
    let tied = TIED_HEADS
        .iter()
        .any(|(above, name)| *name == last && (parent == *above || parent.ends_with(&format!(".{above}"))));
    beside_the_body && (tied || HEADS.contains(&last) || (parent.is_empty() && last == "head"))
}
