//! KimiLinearForCausalLM: delta nets whose states forget row by row (Kimi Delta Attention), among them latent attention that nothing
//! rotates; experts with logistic scores and a correction.

use planish_ops::MOST_STEPS;
use serde_json::{Value, json};

use super::Family;
use super::common_experts::{Paths, Routed, read_groups, read_kinds};
use super::common_latent::Latent;
use super::parts::{Sizes, activation, epsilon, linear, only};
use crate::config::Config;
use crate::{
    Activation, Architecture, BlockSpec, BranchSpec, ConvolutionSpec, Error, ExpertsSpec, LatentAttentionSpec,
    LayerSpec, NormSpec, Order, PrefixAlias, RankedSpec, RecurrenceShape, RecurrenceSpec, Routing, RuleSpec,
    ScoreCorrectionSpec, Scoring, StepsSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "KimiLinearForCausalLM",
    model_type: "kimi_linear",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    // The first names are those of published checkpoints and of transformers' files, the others those of DeepSeek.
    let either = |key: &str, default: Value| config.value(key).cloned().unwrap_or(default);
    let defaults = json!({
        "vocab_size": 163840, "hidden_size": 2304, "intermediate_size": 9216, "moe_intermediate_size": 1024, "num_hidden_layers": 27,
        "num_attention_heads": 32, "num_key_value_heads": 32, "routed_scaling_factor": 2.446, "topk_group": 1,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "rms_norm_eps": 1e-5,
        "linear_head_dim": 128, "linear_num_heads": 32, "linear_conv_kernel_dim": 4, "first_k_dense_replace": 1,
        "max_position_embeddings": either("model_max_length", json!(1_048_576)),
        "norm_topk_prob": either("moe_renormalize", json!(true)),
        "n_group": either("num_expert_group", json!(1)),
        "num_local_experts": either("num_experts", json!(256)),
        "num_experts_per_tok": either("num_experts_per_token", json!(8)),
        "n_shared_experts": either("num_shared_experts", json!(1))
    });
    let config = config.with_defaults(&defaults);
    only(config, "mla_use_nope", true)?;
    for (key, known) in [("moe_router_activation_func", "sigmoid"), ("hidden_act", "silu")] {
        if config.optional_text(key)?.is_some_and(|found| found != known) {
            return Err(config.error(key, known));
        }
    }
    if config
        .optional_count("moe_layer_freq")?
        .is_some_and(|frequency| frequency != 1)
    {
        return Err(config.error("moe_layer_freq", "1"));
    }
    let kimi = Kimi::read(config)?;
    let sizes = kimi.sizes;
    let final_norm = kimi.norm("model.norm".to_owned());
    let head = sizes.head(config, "lm_head", false)?;
    let layer = |index| kimi.layer(index);
    // transformers saves feed-forward blocks under the name of experts, too.
    let aliases = (0..sizes.layers).filter(|&index| !kimi.sparse[index]).map(|index| {
        let path = |part: &str| format!("model.layers.{index}.{part}.");
        PrefixAlias::new(path("mlp"), path("block_sparse_moe"))
    });
    Ok(Architecture {
        prefix_aliases: aliases.collect(),
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}

struct Kimi {
    sizes: Sizes,
    latent: Latent,
    shape: RecurrenceShape,
    taps: usize,
    attends: Vec<bool>,
    sparse: Vec<bool>,
    routed: Routed,
    /// Values between the products of the shared experts.
    shared: usize,
    epsilon: f32,
    activation: Activation,
}

impl Kimi {
    fn read(config: Config<'_>) -> Result<Kimi, Error> {
        let latent = Latent::read(config)?;
        let sizes = Sizes::read(config, latent.rotated)?;
        let own = config.object("linear_attn_config")?.unwrap_or(config);
        let size = |published: &'static str, saved: &'static str| match own.optional_count(published)? {
            Some(size) if config.value("linear_attn_config").is_some() => Ok(size),
            _ => config.count(saved),
        };
        let head_dim = size("head_dim", "linear_head_dim")?;
        if head_dim > MOST_STEPS {
            return Err(config.error("linear_head_dim", "256 at most"));
        }
        let heads = size("num_heads", "linear_num_heads")?;
        let taps = size("short_conv_kernel_size", "linear_conv_kernel_dim")?;
        if taps < 2 {
            return Err(config.error("linear_conv_kernel_dim", "at least 2"));
        }
        let experts = config.count("num_local_experts")?;
        let chosen = config.count("num_experts_per_tok")?;
        let routing = Routing {
            chosen,
            scoring: Scoring::Sigmoid,
            groups: read_groups(config, experts, chosen, 2)?,
            normalize: config.flag("norm_topk_prob", true)?.then_some(1e-20),
            scale: config.number("routed_scaling_factor")? as f32,
        };
        let first = config.whole("first_k_dense_replace", 1)?;
        let routed = Routed::read(config, "moe_intermediate_size", "num_local_experts", routing)?;
        Ok(Kimi {
            shape: RecurrenceShape {
                heads,
                groups: heads,
                key_dim: head_dim,
                value_dim: head_dim,
                order: Order::QueryKeyValue,
            },
            taps,
            attends: attends(config, sizes.layers)?,
            sparse: read_kinds(config)?.unwrap_or_else(|| (0..sizes.layers).map(|index| index >= first).collect()),
            shared: config.whole("n_shared_experts", 0)? * routed.intermediate,
            routed,
            epsilon: epsilon(config, "rms_norm_eps", 1e-5)?,
            activation: activation(config, "hidden_act", "silu")?,
            sizes,
            latent,
        })
    }

    fn norm(&self, name: String) -> NormSpec {
        NormSpec::rms(name, self.sizes.hidden, self.epsilon)
    }

    fn layer(&self, index: usize) -> Result<LayerSpec, Error> {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let mixer: BlockSpec = match self.attends[index] {
            true => LatentAttentionSpec {
                rope: None,
                ..self.latent.attention(&self.sizes, index)
            }
            .into(),
            false => self.delta(&path("self_attn")).into(),
        };
        let names = ["gate_proj", "up_proj", "down_proj"];
        let feed_forward: BlockSpec = match self.sparse[index] {
            true => self.experts(index).into(),
            false => self.sizes.gated(&path("mlp"), names, false, self.activation).into(),
        };
        Ok(LayerSpec::sequential([
            BranchSpec::new(self.norm(path("input_layernorm")), mixer),
            BranchSpec::new(self.norm(path("post_attention_layernorm")), feed_forward),
        ]))
    }

    fn delta(&self, path: &str) -> RecurrenceSpec {
        let (hidden, width, rank) = (
            self.sizes.hidden,
            self.shape.heads * self.shape.key_dim,
            self.shape.key_dim,
        );
        let name = |part: &str| format!("{path}.{part}");
        let layer = |part: &str, rows, cols| linear(name(part), rows, cols, false);
        let ranked = |down, up| RankedSpec {
            down: Some(layer(down, rank, hidden)),
            layer: layer(up, width, rank),
        };
        RecurrenceSpec {
            shape: self.shape,
            inputs: ["q_proj", "k_proj", "v_proj"]
                .map(|part| layer(part, width, hidden))
                .into(),
            convolution: ConvolutionSpec {
                name: name("conv1d"),
                parts: ["q_conv1d", "k_conv1d", "v_conv1d"].map(name).into(),
                channels: self.shape.cols(),
                taps: self.taps,
                bias: false,
                activation: Some(Activation::Silu),
                factors: Vec::new(),
            },
            gate: ranked("g_a_proj", "g_b_proj"),
            gate_activation: Activation::Sigmoid,
            steps: StepsSpec {
                inputs: ranked("f_a_proj", "f_b_proj"),
                scale: 1.0,
                bias: name("dt_bias"),
                limits: (0.0, f32::INFINITY),
                log_rates: name("A_log"),
            },
            rule: RuleSpec::Delta {
                beta: layer("b_proj", self.shape.heads, hidden),
            },
            norm: Some(NormSpec::rms(name("o_norm"), self.shape.value_dim, self.epsilon)),
            norm_first: true,
            output: layer("o_proj", hidden, width),
        }
    }

    fn experts(&self, index: usize) -> ExpertsSpec {
        let paths = Paths::mixtral(index);
        let path = &paths.hub;
        let shared = format!("{path}.shared_experts");
        ExpertsSpec {
            score_correction: Some(ScoreCorrectionSpec {
                names: ["gate.e_score_correction_bias", "e_score_correction_bias"]
                    .map(|name| format!("{path}.{name}"))
                    .to_vec(),
                required: true,
            }),
            shared: (self.shared > 0).then(|| self.routed.shared(&self.sizes, &shared, self.shared, false)),
            ..self.routed.at(&paths)
        }
    }
}

/// Which layers attend: by `layer_types`, by the numbers of published configs, which begin at 1, or every fourth but the first.
fn attends(config: Config<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    if let Some(kinds) = config.texts("layer_types")? {
        let known = |kind: &&str| matches!(*kind, "full_attention" | "linear_attention");
        return match kinds.len() >= layers && kinds.iter().all(known) {
            true => Ok(kinds
                .into_iter()
                .take(layers)
                .map(|kind| kind == "full_attention")
                .collect()),
            false => Err(config.error("layer_types", "full_attention or linear_attention for every layer")),
        };
    }
    let own = config.object("linear_attn_config")?;
    let listed = |key: &str| own.map_or(Ok(None), |own| own.numbers(key));
    let (Some(full), Some(delta)) = (listed("full_attn_layers")?, listed("kda_layers")?) else {
        return Ok((0..layers).map(|index| index > 0 && index.is_multiple_of(4)).collect());
    };
    let has = |numbers: &[f64], index: usize| numbers.contains(&((index + 1) as f64));
    match (0..layers).all(|index| has(&full, index) != has(&delta, index)) {
        true => Ok((0..layers).map(|index| has(&full, index)).collect()),
        false => Err(config.error(
            "linear_attn_config",
            "every layer in one of full_attn_layers and kda_layers",
        )),
    }
}
