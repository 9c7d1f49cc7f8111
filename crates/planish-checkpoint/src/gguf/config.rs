//! config.json rebuilt from the metadata of a GGUF file, for the classes of transformers that [`Architecture`] names.

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, Epsilon, Key, Literal};
use super::fault::Fault;
use super::header::Header;
use super::metadata::{Metadata, Value as Stored};
use super::{mixed, rope};

/// What the config depends on besides metadata.
pub(super) struct Facts<'a> {
    pub architecture: &'static Architecture,
    pub metadata: &'a Metadata,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// There is no output head of its own.
    pub tied: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    /// The type in which the weights are held exactly, or nearly: `float16`, ..
    pub dtype: &'static str,
    pub output_bias: bool,
    pub query_norm: bool,
    pub header: &'a Header,
    /// The factors of `rope_freqs.weight`. // (head_dim / 2)
    pub rope_factors: Option<Vec<f32>>,
    /// The factors of longrope, within the original context and beyond. // both (rotated / 2)
    pub long_rope: Option<[Vec<f32>; 2]>,
}

/// Sizes that other parts need too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Sizes {
    pub layers: usize,
    pub hidden: usize,
    pub intermediate: usize,
    pub heads: usize,
    pub key_value_heads: usize,
    pub head_dim: usize,
    pub context: usize,
}

impl Sizes {
    /// Reads and checks the sizes of a model.
    pub fn read(architecture: &Architecture, metadata: &Metadata) -> Result<Sizes, Fault> {
        let keys = Keys {
            prefix: architecture.name,
            metadata,
        };
        let hidden = keys.need_count("embedding_length")?;
        let heads = keys.need_count("attention.head_count")?;
        let head_dim = match architecture.latent {
            true => mixed::latent_lengths(&keys)?.key,
            false => keys.count("attention.key_length")?.unwrap_or(hidden / heads),
        };
        let layers = keys.need_count("block_count")?;
        // Layers at the end that guess tokens ahead are not read.
        let ahead = metadata.count(&keys.key("nextn_predict_layers"))?.unwrap_or(0);
        let (intermediate, key_value_heads) = match architecture.mixed_layers {
            true => (
                keys.of_layers("feed_forward_length")?
                    .map(|counts| counts[0])
                    .unwrap_or(1),
                keys.of_layers("attention.head_count_kv")?
                    .and_then(|counts| counts.into_iter().max()),
            ),
            false => (
                keys.need_count("feed_forward_length")?,
                keys.count("attention.head_count_kv")?,
            ),
        };
        let sizes = Sizes {
            layers: layers.saturating_sub(ahead).max(1),
            hidden,
            intermediate,
            heads,
            key_value_heads: match architecture.latent {
                true => heads,
                false => key_value_heads.filter(|&heads| heads > 0).unwrap_or(heads),
            },
            head_dim,
            context: keys.need_count("context_length")?,
        };
        keys.refuse_what_is_not_modelled(architecture, &sizes)?;
        Ok(sizes)
    }
}

/// The metadata keys of one architecture.
pub(super) struct Keys<'a> {
    pub prefix: &'static str,
    pub metadata: &'a Metadata,
}

impl Keys<'_> {
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// A count by layer, or one for all; none are 0 entries.
    pub fn of_layers(&self, name: &str) -> Result<Option<Vec<usize>>, Fault> {
        let key = self.key(name);
        let Some(Stored::Array(_)) = self.metadata.get(&key) else {
            return Ok(self.metadata.count(&key)?.map(|count| vec![count]));
        };
        let counts = self.metadata.integers(&key)?.unwrap_or_default();
        let small = |count: i64| i32::try_from(count).ok().and_then(|count| usize::try_from(count).ok());
        let counts: Option<Vec<usize>> = counts.into_iter().map(small).collect();
        match counts.filter(|counts| !counts.is_empty()) {
            Some(counts) => Ok(Some(counts)),
            None => Err(Fault::key(&key, "counts from 0 to 2147483647", "others, or none")),
        }
    }

    /// A positive count, the same for every layer.
    pub fn count(&self, name: &str) -> Result<Option<usize>, Fault> {
        match self.metadata.uniform_count(&self.key(name))? {
            Some(0) => Err(Fault::key(&self.key(name), "at least 1", 0)),
            count => Ok(count),
        }
    }

    pub fn need_count(&self, name: &str) -> Result<usize, Fault> {
        self.metadata.need(&self.key(name), self.count(name)?)
    }

    pub fn float(&self, name: &str) -> Result<Option<f64>, Fault> {
        self.metadata.float(&self.key(name))
    }

    fn refuse_what_is_not_modelled(&self, architecture: &Architecture, sizes: &Sizes) -> Result<(), Fault> {
        if architecture.has_experts() {
            self.need_count("expert_count")?;
        } else if let Some(experts) = self
            .metadata
            .count(&self.key("expert_count"))?
            .filter(|&experts| experts > 0)
        {
            return Err(Fault::unsupported(format!(
                "a model of {experts} experts; `{}` is read without experts only",
                self.prefix
            )));
        }
        if sizes.head_dim == 0 || !sizes.head_dim.is_multiple_of(2) {
            return Err(Fault::key(
                &self.key("attention.key_length"),
                "a positive even number",
                sizes.head_dim,
            ));
        }
        if architecture.latent || architecture.heads_differ() {
            return Ok(());
        }
        let rotates_a_part = architecture.keys.iter().any(|key| matches!(key, Key::RotatedPart(_)));
        let sizes_of_heads = ["attention.value_length", "rope.dimension_count"];
        for name in &sizes_of_heads[..if rotates_a_part { 1 } else { 2 }] {
            if let Some(found) = self.count(name)?.filter(|&found| found != sizes.head_dim) {
                let what = format!(
                    "metadata key `{}`: expected the head size {}, found {found}",
                    self.key(name),
                    sizes.head_dim
                );
                return Err(Fault::unsupported(what));
            }
        }
        Ok(())
    }
}

/// The whole config.
pub(super) fn rebuild(facts: &Facts, sizes: &Sizes) -> Result<Map<String, Value>, Fault> {
    let Facts {
        architecture, metadata, ..
    } = facts;
    let keys = Keys {
        prefix: architecture.name,
        metadata,
    };
    let (epsilon, epsilon_key) = match architecture.epsilon {
        Epsilon::Rms(key) => ("attention.layer_norm_rms_epsilon", key),
        Epsilon::Layer(key) => ("attention.layer_norm_epsilon", key),
    };
    let epsilon = metadata.need(&keys.key(epsilon), keys.float(epsilon)?)?;
    let factors = facts.rope_factors.as_deref().filter(|_| !architecture.heads_differ());
    let mut rope = rope::rebuild(&keys, sizes, factors)?;
    if let Some([short, long]) = &facts.long_rope {
        rope.scaling = json!({ "rope_type": "longrope", "short_factor": short, "long_factor": long });
    }
    let token = |name: &str| metadata.count(&format!("tokenizer.ggml.{name}_token_id"));

    let mut config = Map::new();
    let mut set = |key: &str, value: Value| drop(config.insert(key.into(), value));
    set("architectures", json!([architecture.class]));
    set("model_type", json!(architecture.model_type));
    set("vocab_size", json!(facts.vocab_size));
    set("hidden_size", json!(sizes.hidden));
    set("intermediate_size", json!(sizes.intermediate));
    set("num_hidden_layers", json!(sizes.layers));
    set("num_attention_heads", json!(sizes.heads));
    set("num_key_value_heads", json!(sizes.key_value_heads));
    set("head_dim", json!(sizes.head_dim));
    set("hidden_act", json!("silu"));
    set("max_position_embeddings", json!(sizes.context));
    set(epsilon_key, json!(epsilon));
    set("rope_theta", json!(rope.theta));
    set("rope_scaling", rope.scaling);
    set("tie_word_embeddings", json!(facts.tied));
    set("bos_token_id", json!(token("bos")?));
    set("eos_token_id", json!(token("eos")?));
    set("pad_token_id", json!(token("padding")?));
    set("torch_dtype", json!(facts.dtype));
    set("use_cache", json!(true));
    for key in architecture.keys {
        match mixed::keys(key, &keys, facts, sizes)? {
            Some(found) => config.extend(found),
            None => add_key(&mut config, key, &keys, facts, sizes)?,
        }
    }
    Ok(config)
}

/// What an architecture says beyond a Llama. Metadata that is absent leaves the key to its default.
fn add_key(config: &mut Map<String, Value>, key: &Key, keys: &Keys, facts: &Facts, sizes: &Sizes) -> Result<(), Fault> {
    let found = match *key {
        Key::Count(stored, name) => keys.count(stored)?.map(|count| (name, json!(count))),
        Key::Whole(stored, name, default) => {
            let count = keys.metadata.count(&keys.key(stored))?.unwrap_or(default);
            Some((name, json!(count)))
        }
        Key::Float(stored, name) => keys.float(stored)?.map(|value| (name, json!(value))),
        Key::FloatOr(stored, name, default) => Some((name, json!(keys.float(stored)?.unwrap_or(default)))),
        Key::Flag(stored, name) => keys.metadata.flag(&keys.key(stored))?.map(|flag| (name, json!(flag))),
        Key::FlagOr(stored, name, default) => {
            Some((name, json!(keys.metadata.flag(&keys.key(stored))?.unwrap_or(default))))
        }
        Key::Set(name, Literal::Text(text)) => Some((name, json!(text))),
        Key::Set(name, Literal::Flag(flag)) => Some((name, json!(flag))),
        Key::Set(name, Literal::Null) => Some((name, Value::Null)),
        Key::RotatedPart(name) => {
            let rotated = keys.count("rope.dimension_count")?.unwrap_or(sizes.head_dim);
            Some((name, json!(rotated as f64 / sizes.head_dim as f64)))
        }
        Key::Window => Some(("sliding_window", json!(window(keys)?))),
        Key::LayerTypes(every) => window(keys)?.map(|_| ("layer_types", layer_types(keys, sizes, every))),
        Key::QueryScale(layers) => {
            let scale = match sizes.layers == layers {
                true => sizes.hidden / sizes.heads,
                false => sizes.head_dim,
            };
            Some(("query_pre_attn_scalar", json!(scale)))
        }
        Key::NoRotation(every) => {
            let rotated = |layer: usize| u8::from(!(layer + 1).is_multiple_of(every));
            let layers: Vec<u8> = (0..sizes.layers).map(rotated).collect();
            Some(("no_rope_layers", json!(layers)))
        }
        Key::AttentionBias(name) => Some((name, json!(facts.attention_bias))),
        Key::OutputBias(name) => Some((name, json!(facts.output_bias))),
        Key::FeedForwardBias(name) => Some((name, json!(facts.mlp_bias))),
        Key::QueryNorm(name) => Some((name, json!(facts.query_norm))),
        Key::Untruncated => {
            if let Some(scaling) = config.get_mut("rope_scaling").and_then(Value::as_object_mut) {
                scaling.insert("truncate".to_owned(), json!(false));
            }
            None
        }
        Key::Positions(name) => {
            let rotates = keys.metadata.flag(&keys.key("rope.scaling.finetuned"))?.unwrap_or(true);
            Some((name, json!(if rotates { "rope" } else { "nope" })))
        }
        Key::LastWith(tensor, name) => {
            let layers = mixed::layers_with(facts, sizes, tensor);
            layers.iter().rposition(|has| *has).map(|layer| (name, json!(layer)))
        }
        Key::Has(tensor, name) => Some((name, json!(facts.header.has_in_layers(tensor)))),
        Key::LayerKinds(..) | Key::Latent | Key::Groups | Key::DeltaNet | Key::Mamba2 | Key::Gemma4 => None,
        Key::Rename(from, to) => config.shift_remove(from).map(|value| (to, value)),
    };
    if let Some((name, value)) = found {
        config.insert(name.to_owned(), value);
    }
    Ok(())
}

/// The sliding window; 0 is none.
fn window(keys: &Keys) -> Result<Option<usize>, Fault> {
    let window = keys.metadata.uniform_count(&keys.key("attention.sliding_window"))?;
    Ok(window.filter(|&window| window > 0))
}

fn layer_types(keys: &Keys, sizes: &Sizes, every: usize) -> Value {
    let name = |slides: bool| if slides { "sliding_attention" } else { "full_attention" };
    layer_slides(keys, sizes, every)
        .into_iter()
        .map(name)
        .collect::<Vec<_>>()
        .into()
}

/// Which layers have a window: metadata may give the distance of layers that see all, or a flag for each.
pub(super) fn layer_slides(keys: &Keys, sizes: &Sizes, every: usize) -> Vec<bool> {
    let pattern = keys.metadata.get(&keys.key("attention.sliding_window_pattern"));
    match pattern {
        Some(Stored::Array(array)) => array
            .scalars()
            .map(|value| matches!(value, Stored::Bool(true)) || value.integer().is_some_and(|value| value != 0))
            .collect(),
        Some(value) => {
            let every = value
                .integer()
                .and_then(|every| usize::try_from(every).ok())
                .unwrap_or(every);
            (0..sizes.layers)
                .map(|layer| every != 0 && !(layer + 1).is_multiple_of(every))
                .collect()
        }
        None => (0..sizes.layers)
            .map(|layer| !(layer + 1).is_multiple_of(every))
            .collect(),
    }
}
