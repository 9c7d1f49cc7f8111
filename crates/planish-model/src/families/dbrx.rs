//! DbrxForCausalLM: layer norms without biases, query, key and value in one layer and clipped, routed experts in three tensors.

use planish_ops::{Routing, Scoring};
use serde_json::json;

use super::Family;
use super::common_experts::{Paths, Routed};
use super::mpt::read_clip;
use super::parts::{Sizes, activation, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Architecture, AttentionSpec, BranchSpec, Error, ExpertsSpec, FusedStack, LayerSpec, LinearSpec, NormSpec,
    StackPlace,
};

pub(super) const FAMILY: Family = Family {
    architecture: "DbrxForCausalLM",
    model_type: "dbrx",
    translate,
};

/// The class reads no epsilon.
const EPSILON: f32 = 1e-5;

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "d_model": 2048, "n_heads": 16, "n_layers": 24, "max_seq_len": 2048, "vocab_size": 32000, "attn_config": {}, "ffn_config": {}
    });
    let config = config.with_defaults(&defaults);
    let (attention_defaults, experts_defaults) = (
        json!({"kv_n_heads": 1, "rope_theta": 10000.0}),
        json!({"ffn_hidden_size": 3584, "moe_num_experts": 4, "moe_top_k": 1, "moe_normalize_expert_weights": 1.0}),
    );
    let object = |key| config.object(key)?.ok_or_else(|| config.error(key, "an object"));
    let attention_config = object("attn_config")?.with_defaults(&attention_defaults);
    let experts_config = object("ffn_config")?.with_defaults(&experts_defaults);
    let sizes = read_sizes(config, attention_config)?;
    let routed = read_experts(experts_config, &sizes)?;
    let clip = read_clip(attention_config)?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, EPSILON, false);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.blocks.{index}.{part}");
        let fused = linear(
            path("norm_attn_norm.attn.Wqkv"),
            sizes.fused_rows(),
            sizes.hidden,
            false,
        );
        let output = linear(path("norm_attn_norm.attn.out_proj"), sizes.hidden, sizes.hidden, false);
        let attention = AttentionSpec {
            clip,
            ..sizes.attention_of(sizes.split(&fused), output)
        };
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("norm_attn_norm.norm_1")), attention.into()),
            BranchSpec::new(
                norm(path("norm_attn_norm.norm_2")),
                experts(&routed, path("ffn")).into(),
            ),
        ]))
    };
    let head = sizes.head(config, "lm_head", false)?;
    let final_norm = norm("transformer.norm_f".to_owned());
    Ok(Architecture {
        // As published; transformers 5 saves a base of its own, and computes with that.
        ropes: vec![match config.value("rope_parameters") {
            Some(_) => read_rope(config, sizes.head_dim)?,
            None => read_rope(attention_config, sizes.head_dim)?,
        }],
        ..sizes.decoder(FAMILY.architecture, "transformer.wte", layer, final_norm, head)?
    })
}

fn read_sizes(config: Config<'_>, attention: Config<'_>) -> Result<Sizes, Error> {
    let (hidden, heads, kv_heads) = (
        config.count("d_model")?,
        config.count("n_heads")?,
        attention.count("kv_n_heads")?,
    );
    if !hidden.is_multiple_of(heads) {
        return Err(config.error("n_heads", "a divisor of d_model"));
    }
    if !heads.is_multiple_of(kv_heads) {
        return Err(attention.error("kv_n_heads", "a divisor of n_heads"));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: hidden,
        heads,
        kv_heads,
        head_dim: hidden / heads,
        layers: config.layers("n_layers")?,
        context: config.count("max_seq_len")?,
    })
}

fn read_experts(config: Config<'_>, sizes: &Sizes) -> Result<Routed, Error> {
    const KEY: &str = "moe_normalize_expert_weights";
    let normalize = match config.optional_number(KEY)? {
        None => None,
        Some(1.0) => Some(0.0),
        Some(_) => return Err(config.error(KEY, "1 or nothing")),
    };
    let (chosen, experts) = (config.count("moe_top_k")?, config.count("moe_num_experts")?);
    if chosen > experts {
        return Err(config.error("moe_top_k", "at most moe_num_experts"));
    }
    Ok(Routed {
        hidden: sizes.hidden,
        intermediate: config.count("ffn_hidden_size")?,
        experts,
        routing: Routing {
            chosen,
            scoring: Scoring::Softmax,
            groups: None,
            normalize,
            scale: 1.0,
        },
        activation: match config.object("ffn_act_fn")? {
            Some(function) => activation(function, "name", "silu")?,
            None => activation(config, "", "silu")?,
        },
    })
}

/// The matrices of one projection stand below each other, those of the last with columns as rows.
fn experts(routed: &Routed, path: String) -> ExpertsSpec {
    let router = LinearSpec::new(format!("{path}.router.layer"), routed.experts, routed.hidden);
    let stored = |name: &str| FusedStack::whole(format!("{path}.experts.mlp.{name}"), routed.intermediate);
    let mut spec = ExpertsSpec {
        router: vec![router],
        ..routed.at(&Paths {
            hub: path.clone(),
            names: ["w1", "v1", "w2"],
            module: path.clone(),
        })
    };
    if let Some(gate) = &mut spec.gate {
        gate.places = vec![StackPlace::Joined(stored("w1"))];
    }
    spec.up.places = vec![StackPlace::Joined(stored("v1"))];
    spec.down.places = vec![StackPlace::Transposed(stored("w2"))];
    spec
}
