//! Gemma4ForCausalLM: heads of other sizes in layers without a window, whose values may be their keys; a rotation of a part of these
//! heads; a factor on each layer; routed experts beside the dense block.

use planish_ops::{Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common_experts::{Paths, Routed};
use super::gemma::scale_embedding;
use super::gemma2::logits;
use super::parts::{Sizes, activation, epsilon, window_of_layer};
use crate::config::Config;
use crate::rope::read_rope_of_kind;
use crate::{
    Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, ExpertsSpec, LayerInputSpec, LayerInputsSpec,
    LayerSpec, LinearSpec, NormSpec, StepSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "Gemma4ForCausalLM",
    model_type: "gemma4_text",
    translate: |config| decoder(config, FAMILY.architecture, (512, 256)),
};

/// Neither experts nor embeddings of layers.
pub(super) const UNIFIED_FAMILY: Family = Family {
    architecture: "Gemma4UnifiedForCausalLM",
    model_type: "gemma4_unified_text",
    translate: |config| decoder(config, UNIFIED_FAMILY.architecture, (1024, 0)),
};

/// `window` and `width` are for configs that do not say them.
fn decoder(config: Config<'_>, name: &str, (window, width): (usize, usize)) -> Result<Architecture, Error> {
    let defaults = json!({
        "vocab_size": 262144, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 30, "num_attention_heads": 8,
        "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072, "sliding_window": window,
        "global_head_dim": 512, "hidden_size_per_layer_input": width, "tie_word_embeddings": true, "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 0.25},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}
        }
    });
    let config = config.with_defaults(&defaults);
    if config.optional_text("use_bidirectional_attention")? == Some("all") {
        return Err(config.error("use_bidirectional_attention", "vision or nothing"));
    }
    let gemma = Gemma4::read(config)?;
    let sizes = gemma.sizes;
    let final_norm = NormSpec::rms("model.norm", sizes.hidden, gemma.epsilon);
    let head = sizes.head(config, "lm_head", true)?;
    let ropes = vec![
        read_rope_of_kind(config, "full_attention", "rope_theta", gemma.whole.head_dim)?,
        read_rope_of_kind(config, "sliding_attention", "rope_theta", sizes.head_dim)?,
    ];
    let layer = |index| gemma.layer(config, index);
    let architecture = Architecture {
        embedding: EmbeddingSpec {
            layer_inputs: gemma.layer_inputs(),
            ..EmbeddingSpec::new("model.embed_tokens")
        },
        ropes,
        logits: logits(config)?,
        ..sizes.decoder(name, "model.embed_tokens", layer, final_norm, head)?
    };
    Ok(scale_embedding(architecture))
}

struct Gemma4 {
    /// Of layers with a window.
    sizes: Sizes,
    /// Of the others.
    whole: Sizes,
    /// Whether values are keys in layers without a window.
    keys_are_values: bool,
    window: Option<usize>,
    /// Values that each layer is given beside the hidden state.
    width: usize,
    /// The first layer that shares keys and values of others.
    first_shared: usize,
    /// Whether blocks of layers that share are twice as wide.
    wider: bool,
    epsilon: f32,
    bias: bool,
    activation: crate::Activation,
    routed: Option<Routed>,
}

impl Gemma4 {
    fn read(config: Config<'_>) -> Result<Gemma4, Error> {
        let sizes = Sizes::read(config, 0)?;
        let keys_are_values = config.flag("attention_k_eq_v", false)?;
        let activation = activation(config, "hidden_activation", "gelu_pytorch_tanh")?;
        Ok(Gemma4 {
            whole: whole_sizes(config, sizes, keys_are_values)?,
            sizes,
            keys_are_values,
            width: config.whole("hidden_size_per_layer_input", 0)?,
            first_shared: match sizes.layers.checked_sub(config.whole("num_kv_shared_layers", 0)?) {
                Some(first) if first > 0 => first,
                _ => return Err(config.error("num_kv_shared_layers", "fewer than layers")),
            },
            wider: config.flag("use_double_wide_mlp", false)?,
            window: config.optional_count("sliding_window")?,
            epsilon: epsilon(config, "rms_norm_eps", 1e-6)?,
            bias: config.flag("attention_bias", false)?,
            activation,
            routed: match config.flag("enable_moe_block", false)? {
                true => Some(Routed {
                    activation,
                    ..Routed::read(config, "moe_intermediate_size", "num_experts", routing(config)?)?
                }),
                false => None,
            },
        })
    }

    fn layer(&self, config: Config<'_>, index: usize) -> Result<LayerSpec, Error> {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| NormSpec::rms(path(part), self.sizes.hidden, self.epsilon);
        let window = self.window_of(config, index)?;
        let shares = self.shares(config, index)?;
        let attention = BranchSpec {
            post_norm: Some(norm("post_attention_layernorm")),
            ..BranchSpec::new(
                norm("input_layernorm"),
                self.attention(&path("self_attn"), window, shares).into(),
            )
        };
        let sizes = match shares.is_some() && self.wider {
            true => Sizes {
                intermediate: 2 * self.sizes.intermediate,
                ..self.sizes
            },
            false => self.sizes,
        };
        let names = ["gate_proj", "up_proj", "down_proj"];
        let dense = sizes.gated(&path("mlp"), names, false, self.activation);
        let dense = BranchSpec::new(norm("pre_feedforward_layernorm"), dense.into());
        let after = norm("post_feedforward_layernorm");
        let feed_forward = match &self.routed {
            None => StepSpec::new(vec![BranchSpec {
                post_norm: Some(after),
                ..dense
            }]),
            Some(routed) => {
                let experts = self.experts(routed, index);
                let dense = BranchSpec {
                    post_norm: Some(norm("post_feedforward_layernorm_1")),
                    ..dense
                };
                let experts = BranchSpec {
                    post_norm: Some(norm("post_feedforward_layernorm_2")),
                    ..BranchSpec::new(norm("pre_feedforward_layernorm_2"), experts.into())
                };
                StepSpec {
                    sum_norm: Some(after),
                    ..StepSpec::new(vec![dense, experts])
                }
            }
        };
        let mut steps = vec![StepSpec::new(vec![attention]), feed_forward];
        if self.width > 0 {
            let block = LayerInputSpec {
                layer: index,
                layers: self.sizes.layers,
                gate: LinearSpec::new(path("per_layer_input_gate"), self.width, self.sizes.hidden),
                activation: self.activation,
                output: LinearSpec::new(path("per_layer_projection"), self.sizes.hidden, self.width),
            };
            steps.push(StepSpec::new(vec![BranchSpec {
                norm: None,
                block: block.into(),
                post_norm: Some(norm("post_per_layer_input_norm")),
                scale: 1.0,
            }]));
        }
        if let Some(last) = steps.last_mut() {
            last.factor = Some(path("layer_scalar"));
        }
        Ok(LayerSpec { steps })
    }

    /// The last layer sees all, whatever the config says.
    fn window_of(&self, config: Config<'_>, index: usize) -> Result<Option<usize>, Error> {
        match index + 1 == self.sizes.layers {
            true => Ok(None),
            false => window_of_layer(config, self.window, slides, index),
        }
    }

    /// The last layer of the same kind that stores keys and values, for layers that do not.
    fn shares(&self, config: Config<'_>, index: usize) -> Result<Option<usize>, Error> {
        if index < self.first_shared {
            return Ok(None);
        }
        let window = self.window_of(config, index)?;
        for other in (0..self.first_shared).rev() {
            if self.window_of(config, other)? == window {
                return Ok(Some(other));
            }
        }
        Err(config.error("num_kv_shared_layers", "layers of both kinds before those that share"))
    }

    /// A sum of two terms over the root of 2, of which one is normalized.
    fn layer_inputs(&self) -> Option<LayerInputsSpec> {
        let Sizes {
            layers,
            hidden,
            vocabulary,
            ..
        } = self.sizes;
        let width = self.width;
        let half = 0.5f32.sqrt();
        (width > 0).then(|| LayerInputsSpec {
            layers,
            width,
            table: "model.embed_tokens_per_layer".to_owned(),
            rows: vocabulary,
            scale: (width as f32).sqrt() * half,
            projection: LinearSpec::new("model.per_layer_model_projection", layers * width, hidden),
            // The norm takes the projection's factor, the root of the hidden size, away; its epsilon stays.
            norm: NormSpec {
                scale: half,
                ..NormSpec::rms("model.per_layer_projection_norm", width, self.epsilon * hidden as f32)
            },
        })
    }

    fn attention(&self, path: &str, window: Option<usize>, shares: Option<usize>) -> AttentionSpec {
        let sizes = if window.is_some() { self.sizes } else { self.whole };
        let norm = |name: &str| NormSpec::rms(format!("{path}.{name}"), sizes.head_dim, self.epsilon);
        let attention = sizes.attention(path, ["q_proj", "k_proj", "v_proj", "o_proj"], self.bias, self.bias);
        AttentionSpec {
            value: match self.keys_are_values && window.is_none() {
                true => attention.key.clone(),
                false => attention.value,
            },
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
            ..attention
        }
    }

    /// Routed by the hidden state itself, under a norm of the router.
    fn experts(&self, routed: &Routed, index: usize) -> ExpertsSpec {
        let path = format!("model.layers.{index}");
        let router = LinearSpec::new(format!("{path}.router.proj"), routed.experts, routed.hidden);
        ExpertsSpec {
            router: vec![router],
            router_norm: Some(NormSpec {
                stored: Some(format!("{path}.router.scale")),
                scale: (routed.hidden as f32).powf(-0.5),
                ..NormSpec::rms("", routed.hidden, self.epsilon)
            }),
            factors: Some(format!("{path}.router.per_expert_scale")),
            ..routed.at(&Paths {
                hub: path.clone(),
                names: ["gate_proj", "up_proj", "down_proj"],
                module: path,
            })
        }
    }
}

/// Sizes of layers without a window: as published, or as transformers 5 saves them, by layer.
fn whole_sizes(config: Config<'_>, sizes: Sizes, keys_are_values: bool) -> Result<Sizes, Error> {
    let whole = match config.object("per_layer_config")? {
        None => {
            let kv_heads = config.optional_count("num_global_key_value_heads")?;
            Sizes {
                head_dim: config.count("global_head_dim")?,
                kv_heads: kv_heads.filter(|_| keys_are_values).unwrap_or(sizes.kv_heads),
                ..sizes
            }
        }
        Some(layers) => {
            let own = |index: usize, key: &str, default: usize| {
                let value = layers.value(&index.to_string()).and_then(|own| own.get(key)?.as_u64());
                value.map_or(default, |value| value as usize)
            };
            let of_layer = |index| {
                let head_dim = own(index, "head_dim", sizes.head_dim);
                (head_dim, own(index, "num_key_value_heads", sizes.kv_heads))
            };
            let (usual, last) = ((sizes.head_dim, sizes.kv_heads), of_layer(sizes.layers - 1));
            for index in 0..sizes.layers {
                let window = window_of_layer(config, Some(1), slides, index)?;
                let expected = if window.is_some() && index + 1 < sizes.layers {
                    usual
                } else {
                    last
                };
                if of_layer(index) != expected {
                    return Err(config.error("per_layer_config", "the same for all layers of a kind"));
                }
            }
            Sizes {
                head_dim: last.0,
                kv_heads: last.1,
                ..sizes
            }
        }
    };
    let fits = (1..=1 << 16).contains(&whole.head_dim) && whole.kv_heads > 0;
    match fits && sizes.heads.is_multiple_of(whole.kv_heads) {
        true => Ok(whole),
        false => Err(config.error("num_global_key_value_heads", "a divisor of num_attention_heads")),
    }
}

/// Which layers have a window where the config does not say it.
fn slides(index: usize) -> bool {
    !(index + 1).is_multiple_of(6)
}

fn routing(config: Config<'_>) -> Result<Routing, Error> {
    Ok(Routing {
        chosen: config.count("top_k_experts")?,
        scoring: Scoring::Softmax,
        groups: None,
        normalize: Some(0.0),
        scale: 1.0,
    })
}
