//! Gemma3nForCausalLM: several hidden states, of which layers compute one and correct the others (AltUp); residual branches of low rank
//! (Laurel); embeddings for each layer; late layers that share keys and values; feed-forward gates of which few values are left.

use planish_ops::{Activation, NormKind, erf};
use serde_json::json;

use super::Family;
use super::gemma::scale_embedding;
use super::gemma2::logits;
use super::parts::{Sizes, activation, epsilon, only, window_of_layer};
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{
    Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, FeedForwardSpec, LaurelSpec, LayerInputSpec,
    LayerInputsSpec, LayerSpec, LinearSpec, MixerSpec, NormSpec, StepSpec, StreamUse, StreamsSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "Gemma3nForCausalLM",
    model_type: "gemma3n_text",
    translate,
};

/// Most hidden states of a token: each needs a projection of its own.
const MOST_STREAMS: usize = 64;
/// The least mean square that a projection is divided by to get the magnitude of another.
const FLOOR: f32 = 1e-5;

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "vocab_size": 262400, "hidden_size": 2048, "intermediate_size": 16384, "num_hidden_layers": 35, "num_attention_heads": 8,
        "num_key_value_heads": 2, "head_dim": 256, "max_position_embeddings": 32768, "sliding_window": 512,
        "tie_word_embeddings": true, "final_logit_softcapping": 30.0, "vocab_size_per_layer_input": 262144,
        "hidden_size_per_layer_input": 256, "altup_num_inputs": 4, "num_kv_shared_layers": 15, "laurel_rank": 64,
        "rope_theta": 1e6, "rope_local_base_freq": 1e4
    });
    let config = config.with_defaults(&defaults);
    only(config, "use_bidirectional_attention", false)?;
    let gemma = Gemma3n::read(config)?;
    let sizes = gemma.sizes;
    // The norm takes the mean over the streams away; its epsilon stays.
    let final_epsilon = gemma.epsilon * (gemma.streams * gemma.streams) as f32;
    let final_norm = NormSpec::rms("model.norm", sizes.hidden, final_epsilon);
    let head = sizes.head(config, "lm_head", true)?;
    let rope = |kind, theta| read_rope_of_kind(config, kind, theta, sizes.head_dim);
    let ropes = vec![
        rope("full_attention", "rope_theta")?,
        rope("sliding_attention", "rope_local_base_freq")?,
    ];
    let layer = |index| gemma.layer(config, index);
    let architecture = Architecture {
        embedding: EmbeddingSpec {
            layer_inputs: Some(gemma.layer_inputs()),
            streams: Some(gemma.streams()),
            ..EmbeddingSpec::new("model.embed_tokens")
        },
        ropes,
        logits: logits(config)?,
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    };
    Ok(scale_embedding(architecture))
}

struct Gemma3n {
    /// Their `intermediate` is that of the first layer.
    sizes: Sizes,
    /// Of the feed-forward block of every layer.
    intermediates: Vec<usize>,
    /// Standard deviations that gates are cut at, where they are, in every layer.
    cuts: Vec<Option<f32>>,
    window: Option<usize>,
    /// Hidden states of a token.
    streams: usize,
    /// The one that layers compute.
    active: usize,
    /// Whether what a layer's own embedding reads is scaled.
    scales: bool,
    rank: usize,
    /// Values that each layer is given beside the hidden state.
    width: usize,
    /// Tokens that have such values.
    rows: usize,
    /// The first layer that shares keys and values of others.
    first_shared: usize,
    epsilon: f32,
    bias: bool,
    activation: Activation,
}

impl Gemma3n {
    fn read(config: Config<'_>) -> Result<Gemma3n, Error> {
        let layers = config.layers("num_hidden_layers")?;
        let intermediates = intermediates(config, layers)?;
        let sizes = Sizes::with_intermediate(config, 0, intermediates.first().copied().unwrap_or(1))?;
        let streams = config.count("altup_num_inputs")?;
        if streams > MOST_STREAMS {
            return Err(config.error("altup_num_inputs", "64 at most"));
        }
        let active = config.whole("altup_active_idx", 0)?;
        if active >= streams {
            return Err(config.error("altup_active_idx", "less than altup_num_inputs"));
        }
        Ok(Gemma3n {
            sizes,
            intermediates,
            cuts: cuts(config, layers)?,
            window: config.optional_count("sliding_window")?,
            streams,
            active,
            scales: config.flag("altup_correct_scale", true)?,
            rank: config.count("laurel_rank")?,
            width: config.count("hidden_size_per_layer_input")?,
            rows: config.count("vocab_size_per_layer_input")?,
            first_shared: match layers.checked_sub(config.whole("num_kv_shared_layers", 0)?) {
                Some(first) if first > 0 => first,
                _ => return Err(config.error("num_kv_shared_layers", "fewer than layers")),
            },
            epsilon: epsilon(config, "rms_norm_eps", 1e-6)?,
            bias: config.flag("attention_bias", false)?,
            activation: activation(config, "hidden_activation", "gelu_pytorch_tanh")?,
        })
    }

    fn layer(&self, config: Config<'_>, index: usize) -> Result<LayerSpec, Error> {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| self.norm(path(part));
        let window = window_of_layer(config, self.window, slides, index)?;
        let attention = BranchSpec {
            post_norm: Some(norm("post_attention_layernorm")),
            ..BranchSpec::new(
                norm("input_layernorm"),
                self.attention(&path("self_attn"), window, self.shares(config, index)?)
                    .into(),
            )
        };
        let laurel = LaurelSpec {
            left: LinearSpec::new(path("laurel.linear_left"), self.rank, self.sizes.hidden),
            right: LinearSpec::new(path("laurel.linear_right"), self.sizes.hidden, self.rank),
            norm: norm("laurel.post_laurel_norm"),
        };
        let laurel = BranchSpec::new(norm("input_layernorm"), laurel.into());
        let feed_forward = BranchSpec {
            post_norm: Some(norm("post_feedforward_layernorm")),
            ..BranchSpec::new(
                norm("pre_feedforward_layernorm"),
                self.feed_forward(&path("mlp"), index).into(),
            )
        };
        let own = LayerInputSpec {
            layer: index,
            layers: self.sizes.layers,
            gate: LinearSpec::new(path("per_layer_input_gate"), self.width, self.sizes.hidden),
            activation: self.activation,
            output: LinearSpec::new(path("per_layer_projection"), self.sizes.hidden, self.width),
        };
        let own = BranchSpec {
            norm: self.scales.then(|| NormSpec {
                stored: Some(path("altup.correct_output_scale")),
                kind: NormKind::Identity,
                ..norm("altup")
            }),
            block: own.into(),
            post_norm: Some(norm("post_per_layer_input_norm")),
            scale: 1.0,
        };
        let altup = path("altup");
        let predicted = self.mixer(&altup, "prediction_coefs", self.streams * self.streams);
        let corrected = self.mixer(&altup, "correction_coefs", self.streams);
        Ok(LayerSpec {
            steps: vec![
                StepSpec {
                    scale: 0.5f32.sqrt(),
                    streams: Some(StreamUse::Predict(predicted)),
                    ..StepSpec::new(vec![attention, laurel])
                },
                StepSpec {
                    streams: Some(StreamUse::Correct(corrected)),
                    ..StepSpec::new(vec![feed_forward])
                },
                StepSpec {
                    streams: Some(StreamUse::Spread),
                    ..StepSpec::new(vec![own])
                },
            ],
        })
    }

    fn norm(&self, name: String) -> NormSpec {
        NormSpec::rms(name, self.sizes.hidden, self.epsilon)
    }

    fn mixer(&self, path: &str, coefficients: &str, rows: usize) -> MixerSpec {
        MixerSpec {
            norm: NormSpec {
                scale: 1.0 / self.sizes.hidden as f32,
                ..self.norm(format!("{path}.router_norm"))
            },
            router: LinearSpec::new(format!("{path}.modality_router"), self.streams, self.sizes.hidden),
            coefficients: LinearSpec::new(format!("{path}.{coefficients}"), rows, self.streams),
        }
    }

    fn streams(&self) -> StreamsSpec {
        let hidden = self.sizes.hidden;
        let layers = |name: &str| {
            let layer = |index: usize| LinearSpec::new(format!("model.{name}.{index}"), hidden, hidden);
            (1..self.streams).map(|stream| layer(stream - 1)).collect()
        };
        StreamsSpec {
            count: self.streams,
            active: self.active,
            project_in: layers("altup_projections"),
            project_out: layers("altup_unembed_projections"),
            floor: FLOOR,
        }
    }

    /// A sum of two terms over the root of 2, of which one is normalized.
    fn layer_inputs(&self) -> LayerInputsSpec {
        let (Sizes { layers, hidden, .. }, width) = (self.sizes, self.width);
        let half = 0.5f32.sqrt();
        LayerInputsSpec {
            layers,
            width,
            table: "model.embed_tokens_per_layer".to_owned(),
            rows: self.rows,
            scale: (width as f32).sqrt() * half,
            projection: LinearSpec::new("model.per_layer_model_projection", layers * width, hidden),
            // The norm takes the projection's factor, the root of the hidden size, away; its epsilon stays.
            norm: NormSpec {
                scale: half,
                ..NormSpec::rms("model.per_layer_projection_norm", width, self.epsilon * hidden as f32)
            },
        }
    }

    /// The last layer of the same kind that stores keys and values, for layers that do not.
    fn shares(&self, config: Config<'_>, index: usize) -> Result<Option<usize>, Error> {
        if index < self.first_shared {
            return Ok(None);
        }
        let window = |index| window_of_layer(config, self.window, slides, index);
        let own = window(index)?;
        for other in (0..self.first_shared).rev() {
            if window(other)? == own {
                return Ok(Some(other));
            }
        }
        Err(config.error("num_kv_shared_layers", "layers of both kinds before those that share"))
    }

    fn attention(&self, path: &str, window: Option<usize>, shares: Option<usize>) -> AttentionSpec {
        let norm = |name: &str| NormSpec::rms(format!("{path}.{name}"), self.sizes.head_dim, self.epsilon);
        let names = ["q_proj", "k_proj", "v_proj", "o_proj"];
        AttentionSpec {
            query_norm: Some(norm("q_norm")),
            shares,
            key_norm: shares.is_none().then(|| norm("k_norm")),
            value_norm: shares.is_none().then(|| NormSpec {
                weight: false,
                ..norm("v_norm")
            }),
            rope: Some(usize::from(window.is_some())),
            scale: 1.0,
            window,
            ..self.sizes.attention(path, names, self.bias, self.bias)
        }
    }

    fn feed_forward(&self, path: &str, index: usize) -> FeedForwardSpec {
        let sizes = Sizes {
            intermediate: self.intermediates[index],
            ..self.sizes
        };
        let mut spec = sizes.gated(path, ["gate_proj", "up_proj", "down_proj"], false, self.activation);
        if let FeedForwardSpec::Gated { cut, .. } = &mut spec {
            *cut = self.cuts[index];
        }
        spec
    }
}

/// One number for all layers or one for each.
fn intermediates(config: Config<'_>, layers: usize) -> Result<Vec<usize>, Error> {
    const KEY: &str = "intermediate_size";
    if config.value(KEY).is_some_and(|value| !value.is_array()) {
        return Ok(vec![config.count(KEY)?; layers]);
    }
    let sizes = config.numbers(KEY)?.unwrap_or_default();
    let fits = |size: &f64| size.fract() == 0.0 && (1.0..=f64::from(1 << 24)).contains(size);
    match sizes.len() == layers && sizes.iter().all(fits) {
        true => Ok(sizes.into_iter().map(|size| size as usize).collect()),
        false => Err(config.error(KEY, "a size for every layer")),
    }
}

/// Of shares of values that do not count, the standard deviations above the mean where others begin.
fn cuts(config: Config<'_>, layers: usize) -> Result<Vec<Option<f32>>, Error> {
    const KEY: &str = "activation_sparsity_pattern";
    let shares = match config.numbers(KEY)? {
        Some(shares) => shares,
        // The first ten layers of models of more.
        None => (0..layers)
            .map(|index| if layers > 10 && index < 10 { 0.95 } else { 0.0 })
            .collect(),
    };
    match shares.len() == layers && shares.iter().all(|share| (0.0..1.0).contains(share)) {
        true => Ok(shares
            .into_iter()
            .map(|share| (share > 0.0).then(|| normal_quantile(share)))
            .collect()),
        false => Err(config.error(KEY, "a share from 0 to below 1 for every layer")),
    }
}

/// The number that a normally distributed one is below with this probability.
fn normal_quantile(probability: f64) -> f32 {
    let (mut low, mut high) = (-7.0f64, 7.0f64);
    for _ in 0..64 {
        let middle = (low + high) / 2.0;
        match 0.5 * (1.0 + erf(middle / std::f64::consts::SQRT_2)) < probability {
            true => low = middle,
            false => high = middle,
        }
    }
    high as f32
}

/// Which layers have a window where the config does not say it.
fn slides(index: usize) -> bool {
    !(index + 1).is_multiple_of(5)
}
