//! config.json rebuilt from the metadata of a GGUF file, for the classes of transformers that [`Architecture`] names.

use serde_json::{Map, Value, json};

use super::architecture::Architecture;
use super::fault::Fault;
use super::metadata::Metadata;
use super::rope;

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
    /// The factors of `rope_freqs.weight`. // (head_dim / 2)
    pub rope_factors: Option<Vec<f32>>,
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
        let head_dim = match keys.count("attention.key_length")? {
            Some(head_dim) => head_dim,
            None => hidden / heads,
        };
        let sizes = Sizes {
            layers: keys.need_count("block_count")?,
            hidden,
            intermediate: keys.need_count("feed_forward_length")?,
            heads,
            key_value_heads: keys.count("attention.head_count_kv")?.unwrap_or(heads),
            head_dim,
            context: keys.need_count("context_length")?,
        };
        keys.refuse_what_is_not_modelled(&sizes)?;
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

    /// A positive count, the same for every layer.
    fn count(&self, name: &str) -> Result<Option<usize>, Fault> {
        match self.metadata.uniform_count(&self.key(name))? {
            Some(0) => Err(Fault::key(&self.key(name), "at least 1", 0)),
            count => Ok(count),
        }
    }

    fn need_count(&self, name: &str) -> Result<usize, Fault> {
        self.metadata.need(&self.key(name), self.count(name)?)
    }

    pub fn float(&self, name: &str) -> Result<Option<f64>, Fault> {
        self.metadata.float(&self.key(name))
    }

    fn refuse_what_is_not_modelled(&self, sizes: &Sizes) -> Result<(), Fault> {
        if let Some(experts) = self
            .metadata
            .count(&self.key("expert_count"))?
            .filter(|&experts| experts > 0)
        {
            return Err(Fault::unsupported(format!(
                "a model of {experts} experts; GGUF is read for dense models only"
            )));
        }
        if sizes.head_dim == 0 || !sizes.head_dim.is_multiple_of(2) {
            return Err(Fault::key(
                &self.key("attention.key_length"),
                "a positive even number",
                sizes.head_dim,
            ));
        }
        for name in ["attention.value_length", "rope.dimension_count"] {
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
    let epsilon = "attention.layer_norm_rms_epsilon";
    let epsilon = metadata.need(&keys.key(epsilon), keys.float(epsilon)?)?;
    let rope = rope::rebuild(&keys, sizes, facts.rope_factors.as_deref())?;
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
    set("rms_norm_eps", json!(epsilon));
    set("rope_theta", json!(rope.theta));
    set("rope_scaling", rope.scaling);
    set("tie_word_embeddings", json!(facts.tied));
    if architecture.bias_keys {
        set("attention_bias", json!(facts.attention_bias));
        set("mlp_bias", json!(facts.mlp_bias));
    }
    set("bos_token_id", json!(token("bos")?));
    set("eos_token_id", json!(token("eos")?));
    set("pad_token_id", json!(token("padding")?));
    set("torch_dtype", json!(facts.dtype));
    set("use_cache", json!(true));
    Ok(config)
}
