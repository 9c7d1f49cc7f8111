//! Parts that families are put together from: sizes, attention, feed-forward blocks, heads, activations, windows.

use planish_ops::Activation;

use crate::config::Config;
use crate::{
    ActivationSpec, Architecture, AttentionSpec, EmbeddingSpec, Error, FeedForwardSpec, HeadSizes, HeadSpec, LayerSpec,
    LinearSpec, LogitsSpec, NormSpec,
};

/// Sizes that all layers share.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub(super) hidden: usize,
    pub(super) vocabulary: usize,
    /// Values between the products of a feed-forward block.
    pub(super) intermediate: usize,
    pub(super) heads: usize,
    /// Divides `heads`.
    pub(super) kv_heads: usize,
    pub(super) head_dim: usize,
    pub(super) layers: usize,
    /// Positions that the model was made for.
    pub(super) context: usize,
}

impl Sizes {
    /// From the usual keys. `head_dim` is for configs that do not say it; 0 is hidden / heads.
    pub(super) fn read(config: Config<'_>, head_dim: usize) -> Result<Sizes, Error> {
        Sizes::with_intermediate(config, head_dim, config.count("intermediate_size")?)
    }

    /// As [`Sizes::read`], for families with another word for `intermediate_size`.
    pub(super) fn with_intermediate(config: Config<'_>, head_dim: usize, intermediate: usize) -> Result<Sizes, Error> {
        let (hidden, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let kv_heads = config.optional_count("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match (config.optional_count("head_dim")?, head_dim) {
            (Some(head_dim), _) => head_dim,
            (None, 0) if hidden.is_multiple_of(heads) => hidden / heads,
            (None, 0) => return Err(config.error("num_attention_heads", "a divisor of hidden_size")),
            (None, head_dim) => head_dim,
        };
        if !heads.is_multiple_of(kv_heads) {
            return Err(config.error("num_key_value_heads", "a divisor of num_attention_heads"));
        }
        Ok(Sizes {
            hidden,
            vocabulary: config.count("vocab_size")?,
            intermediate,
            heads,
            kv_heads,
            head_dim,
            layers: config.layers("num_hidden_layers")?,
            context: config.count("max_position_embeddings")?,
        })
    }

    /// Attention of layers of their own, named query, key, value and output under `path`; rotated by the first rope.
    pub(super) fn attention(&self, path: &str, names: [&str; 4], query_bias: bool, output_bias: bool) -> AttentionSpec {
        let [query, key, value, output] = names.map(|name| format!("{path}.{name}"));
        let (query_rows, key_rows) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        let input = |name, rows| linear(name, rows, self.hidden, query_bias);
        let inputs = [input(query, query_rows), input(key, key_rows), input(value, key_rows)];
        self.attention_of(inputs, linear(output, self.hidden, query_rows, output_bias))
    }

    /// Attention of these layers, rotated by the first rope.
    pub(super) fn attention_of(&self, [query, key, value]: [LinearSpec; 3], output: LinearSpec) -> AttentionSpec {
        let sizes = HeadSizes {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
        };
        AttentionSpec::new(sizes, [query, key, value, output])
    }

    /// Rows of a layer that holds query, key and value.
    pub(super) fn fused_rows(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Query, key and value out of a layer that holds all queries, then all keys, then all values.
    pub(super) fn split(&self, fused: &LinearSpec) -> [LinearSpec; 3] {
        let (query_rows, key_rows) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [
            fused.cut_run(0, query_rows),
            fused.cut_run(query_rows, key_rows),
            fused.cut_run(query_rows + key_rows, key_rows),
        ]
    }

    /// Query, key and value out of a layer that holds, for each key head, its queries, the key and the value.
    pub(super) fn split_groups(&self, fused: &LinearSpec) -> [LinearSpec; 3] {
        let query_rows = self.heads / self.kv_heads * self.head_dim;
        let rows = query_rows + 2 * self.head_dim;
        let key = query_rows..query_rows + self.head_dim;
        [0..query_rows, key.clone(), key.end..rows].map(|part| fused.cut_heads(self.kv_heads, rows, part))
    }

    /// `down(activation(gate(x)) * up(x))`, named gate, up and down under `path`.
    pub(super) fn gated(&self, path: &str, names: [&str; 3], bias: bool, activation: Activation) -> FeedForwardSpec {
        let [gate, up, down] = names.map(|name| format!("{path}.{name}"));
        FeedForwardSpec::Gated {
            gate: linear(gate, self.intermediate, self.hidden, bias),
            up: linear(up, self.intermediate, self.hidden, bias),
            down: linear(down, self.hidden, self.intermediate, bias),
            activation,
            cut: None,
            norm: None,
        }
    }

    /// `down(activation(up(x)))`, named up and down under `path`.
    pub(super) fn plain(
        &self,
        path: &str,
        names: [&str; 2],
        bias: bool,
        activation: impl Into<ActivationSpec>,
    ) -> FeedForwardSpec {
        let [up, down] = names.map(|name| format!("{path}.{name}"));
        FeedForwardSpec::Plain {
            up: linear(up, self.intermediate, self.hidden, bias),
            down: linear(down, self.hidden, self.intermediate, bias),
            activation: activation.into(),
        }
    }

    /// The token table again if `tie_word_embeddings` says so, else the layer of that name.
    pub(super) fn head(&self, config: Config<'_>, name: &str, tied: bool) -> Result<HeadSpec, Error> {
        let layer = LinearSpec::new(name, self.vocabulary, self.hidden);
        Ok(match config.flag("tie_word_embeddings", tied)? {
            true => HeadSpec::Tied(layer),
            false => HeadSpec::Separate(layer),
        })
    }

    /// Layers made one by one between a token table and a norm; no rope.
    pub(super) fn decoder(
        &self,
        name: &str,
        embedding: &str,
        layer: impl Fn(usize) -> Result<LayerSpec, Error>,
        final_norm: NormSpec,
        head: HeadSpec,
    ) -> Result<Architecture, Error> {
        Ok(Architecture {
            name: name.to_owned(),
            hidden: self.hidden,
            vocabulary: self.vocabulary,
            context: self.context,
            limit: None,
            embedding: EmbeddingSpec::new(embedding),
            ropes: Vec::new(),
            layers: (0..self.layers).map(layer).collect::<Result<_, Error>>()?,
            final_norm,
            head,
            logits: LogitsSpec::default(),
            prefix_aliases: Vec::new(),
        })
    }
}

pub(super) fn linear(name: String, rows: usize, cols: usize, bias: bool) -> LinearSpec {
    LinearSpec::new(name, rows, cols).with_bias(bias)
}

/// The small number of norms, under its key.
pub(super) fn epsilon(config: Config<'_>, key: &str, default: f32) -> Result<f32, Error> {
    Ok(config.optional_number(key)?.map_or(default, |epsilon| epsilon as f32))
}

/// The non-linearity under its key, by its name in transformers.
pub(super) fn activation(config: Config<'_>, key: &str, default: &'static str) -> Result<Activation, Error> {
    match config.optional_text(key)?.unwrap_or(default) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu" | "gelu_python" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_python_tanh" | "gelu_fast" | "gelu_accurate" => {
            Ok(Activation::GeluTanh)
        }
        "quick_gelu" => Ok(Activation::QuickGelu),
        "relu" => Ok(Activation::Relu),
        "relu2" => Ok(Activation::Relu2),
        "sigmoid" => Ok(Activation::Sigmoid),
        "tanh" => Ok(Activation::Tanh),
        _ => Err(config.error(
            key,
            "one of silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu, relu, relu2, sigmoid, tanh",
        )),
    }
}

/// Refuses a flag that changes the arithmetic in a way that is not known here; absent is `known`.
pub(super) fn only(config: Config<'_>, key: &str, known: bool) -> Result<(), Error> {
    match config.flag(key, known)? == known {
        true => Ok(()),
        false => Err(config.error(key, if known { "true" } else { "false" })),
    }
}

/// Refuses a key that changes the arithmetic in a way that is not known here, whatever its value.
pub(super) fn refuse(config: Config<'_>, key: &str) -> Result<(), Error> {
    match config.value(key) {
        Some(_) => Err(config.error(key, "nothing")),
        None => Ok(()),
    }
}

/// The window of each layer by `layer_types`: full or sliding attention.
pub(super) fn window_of_layer(
    config: Config<'_>,
    window: Option<usize>,
    default_slides: impl Fn(usize) -> bool,
    index: usize,
) -> Result<Option<usize>, Error> {
    let Some(kinds) = config.texts("layer_types")? else {
        return Ok(window.filter(|_| default_slides(index)));
    };
    match kinds.get(index).copied() {
        Some("full_attention") => Ok(None),
        Some("sliding_attention") if window.is_some() => Ok(window),
        Some("sliding_attention") => Err(config.error("sliding_window", "a window, since layers slide")),
        _ => Err(config.error("layer_types", "full_attention or sliding_attention for every layer")),
    }
}
