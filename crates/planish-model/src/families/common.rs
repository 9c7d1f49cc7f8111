//! What the families around Llama share: sizes, tensor names, layer kinds, activations.

use planish_ops::Activation;

use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, FeedForwardSpec, HeadSpec, LayerSpec, LinearSpec,
    LogitsSpec, NormSpec,
};

/// In what a family differs from Llama.
#[derive(Clone, Copy, Default)]
pub(super) struct Differences {
    /// Query, key and value have biases.
    pub(super) query_bias: bool,
    /// The output of attention has one.
    pub(super) output_bias: bool,
    /// The feed-forward layers have them.
    pub(super) feed_forward_bias: bool,
    /// Query and key heads are normalized.
    pub(super) head_norms: bool,
    /// Values of a head when the config does not say; 0 is hidden / heads.
    pub(super) head_dim: usize,
}

/// A decoder of the Llama kind; `windows` has one entry a layer.
pub(super) fn llama_like(
    config: Config<'_>,
    name: &str,
    differences: Differences,
    windows: impl Fn(usize) -> Result<Option<usize>, Error>,
) -> Result<Architecture, Error> {
    let sizes = Sizes::read(config, differences)?;
    let rope = read_rope(config, sizes.head_dim)?;
    let layers = config.count("num_hidden_layers")?;
    let layer = |index: usize| Ok(sizes.layer(index, differences, windows(index)?));
    Ok(Architecture {
        name: name.to_owned(),
        hidden: sizes.hidden,
        vocabulary: sizes.vocabulary,
        context: config.count("max_position_embeddings")?,
        embedding: EmbeddingSpec::new("model.embed_tokens"),
        ropes: vec![rope],
        layers: (0..layers).map(layer).collect::<Result<_, Error>>()?,
        final_norm: sizes.norm("model.norm".to_owned(), sizes.hidden),
        head: match config.flag("tie_word_embeddings", false)? {
            true => HeadSpec::Tied,
            false => HeadSpec::Separate(LinearSpec::new("lm_head", sizes.vocabulary, sizes.hidden)),
        },
        logits: LogitsSpec::default(),
    })
}

struct Sizes {
    hidden: usize,
    vocabulary: usize,
    inner: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    epsilon: f32,
    activation: Activation,
}

impl Sizes {
    fn read(config: Config<'_>, differences: Differences) -> Result<Sizes, Error> {
        let (hidden, heads) = (config.count("hidden_size")?, config.count("num_attention_heads")?);
        let kv_heads = config.optional_count("num_key_value_heads")?.unwrap_or(heads);
        let head_dim = match (config.optional_count("head_dim")?, differences.head_dim) {
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
            inner: config.count("intermediate_size")?,
            heads,
            kv_heads,
            head_dim,
            epsilon: config.optional_number("rms_norm_eps")?.unwrap_or(1e-6) as f32,
            activation: activation(config)?,
        })
    }

    fn norm(&self, name: String, size: usize) -> NormSpec {
        NormSpec::rms(name, size, self.epsilon)
    }

    fn layer(&self, index: usize, differences: Differences, window: Option<usize>) -> LayerSpec {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        LayerSpec::sequential([
            BranchSpec::new(
                self.norm(path("input_layernorm"), self.hidden),
                self.attention(&path("self_attn"), differences, window).into(),
            ),
            BranchSpec::new(
                self.norm(path("post_attention_layernorm"), self.hidden),
                self.feed_forward(&path("mlp"), differences).into(),
            ),
        ])
    }

    fn attention(&self, path: &str, differences: Differences, window: Option<usize>) -> AttentionSpec {
        let (hidden, head_dim) = (self.hidden, self.head_dim);
        let (query_rows, key_rows) = (self.heads * head_dim, self.kv_heads * head_dim);
        let input = |part: &str, rows| linear(format!("{path}.{part}"), rows, hidden, differences.query_bias);
        let head_norm = |part: &str| {
            differences
                .head_norms
                .then(|| self.norm(format!("{path}.{part}"), head_dim))
        };
        AttentionSpec {
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim,
            query: input("q_proj", query_rows),
            key: input("k_proj", key_rows),
            value: input("v_proj", key_rows),
            output: linear(format!("{path}.o_proj"), hidden, query_rows, differences.output_bias),
            query_norm: head_norm("q_norm"),
            key_norm: head_norm("k_norm"),
            rope: Some(0),
            scale: (head_dim as f32).powf(-0.5),
            window,
            softcap: None,
        }
    }

    fn feed_forward(&self, path: &str, differences: Differences) -> FeedForwardSpec {
        let layer =
            |part: &str, rows, cols| linear(format!("{path}.{part}"), rows, cols, differences.feed_forward_bias);
        FeedForwardSpec::Gated {
            gate: layer("gate_proj", self.inner, self.hidden),
            up: layer("up_proj", self.inner, self.hidden),
            down: layer("down_proj", self.hidden, self.inner),
            activation: self.activation,
        }
    }
}

fn linear(name: String, rows: usize, cols: usize, bias: bool) -> LinearSpec {
    LinearSpec::new(name, rows, cols).with_bias(bias)
}

/// `hidden_act`.
fn activation(config: Config<'_>) -> Result<Activation, Error> {
    match config.optional_text("hidden_act")?.unwrap_or("silu") {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Activation::GeluTanh),
        "relu" => Ok(Activation::Relu),
        _ => Err(config.error("hidden_act", "one of silu, gelu_pytorch_tanh, gelu_new, relu")),
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
