//! NemotronHForCausalLM (Nemotron Nano 2 and 3): layers of one block, which is Mamba 2, attention without rotation, a plain
//! feed-forward block or routed experts without gates.

use planish_ops::Activation;
use serde_json::json;

use super::Family;
use super::common_experts::{Paths, Routed, sigmoid_routing};
use super::mamba2::{Factors, Keys, Mamba2};
use super::parts::{Sizes, activation, epsilon, refuse};
use crate::config::Config;
use crate::{
    Architecture, AttentionSpec, BlockSpec, BranchSpec, Error, ExpertsSpec, LayerSpec, NormSpec, PrefixAlias,
    ScoreCorrectionSpec, SharedExpertsSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "NemotronHForCausalLM",
    model_type: "nemotron_h",
    translate,
};

/// What a layer computes.
#[derive(Clone, Copy)]
enum Kind {
    Mamba,
    Attention,
    FeedForward,
    Experts,
}

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let kinds = read_kinds(config)?;
    let defaults = json!({
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 4096, "intermediate_size": 21504,
        "mamba_num_heads": 128, "mamba_head_dim": 64, "n_groups": 8, "ssm_state_size": 128, "conv_kernel": 4,
        "n_routed_experts": 8, "moe_intermediate_size": 7688, "moe_shared_expert_intermediate_size": 7688, "num_experts_per_tok": 2,
        "routed_scaling_factor": 1.0, "num_hidden_layers": kinds.len()
    });
    let config = config.with_defaults(&defaults);
    refuse(config, "moe_latent_size")?;
    refuse(config, "sliding_window")?;
    if config.optional_text("mamba_hidden_act")?.unwrap_or("silu") != "silu" {
        return Err(config.error("mamba_hidden_act", "silu"));
    }
    let sizes = Sizes::read(config, 0)?;
    if sizes.layers != kinds.len() {
        return Err(config.error(
            "num_hidden_layers",
            &format!("{}, as kinds of layers are given", kinds.len()),
        ));
    }
    let inner = config.count("mamba_num_heads")? * config.count("mamba_head_dim")?;
    let mamba = Mamba2::read_keys(config, sizes.hidden, Some(inner), &Keys::NEMOTRON)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let activation = activation(config, "mlp_hidden_act", "relu2")?;
    let (bias, mlp_bias) = (config.flag("attention_bias", false)?, config.flag("mlp_bias", false)?);
    let routed = Routed {
        activation,
        ..Routed::read(
            config,
            "moe_intermediate_size",
            "n_routed_experts",
            sigmoid_routing(config)?,
        )?
    };
    let shared = Sizes {
        intermediate: config.count("moe_shared_expert_intermediate_size")?,
        ..sizes
    };
    let layer = |index: usize| {
        let path = format!("backbone.layers.{index}.mixer");
        let block: BlockSpec = match kinds[index] {
            Kind::Mamba => {
                let norm = mamba.norm(&path, epsilon);
                mamba.layer(&path, Factors::ONE, Some(norm), mamba.input_bias).into()
            }
            Kind::Attention => AttentionSpec {
                rope: None,
                ..sizes.attention(&path, ["q_proj", "k_proj", "v_proj", "o_proj"], bias, bias)
            }
            .into(),
            Kind::FeedForward => sizes
                .plain(&path, ["up_proj", "down_proj"], mlp_bias, activation)
                .into(),
            Kind::Experts => experts(&routed, &shared, path, activation, mlp_bias).into(),
        };
        let norm = NormSpec::rms(format!("backbone.layers.{index}.norm"), sizes.hidden, epsilon);
        Ok(LayerSpec::sequential([BranchSpec::new(norm, block)]))
    };
    let final_norm = NormSpec::rms("backbone.norm_f", sizes.hidden, epsilon);
    let head = sizes.head(config, "lm_head", false)?;
    Ok(Architecture {
        prefix_aliases: vec![PrefixAlias::new("backbone.", "model.")],
        ..sizes.decoder(FAMILY.architecture, "backbone.embeddings", layer, final_norm, head)?
    })
}

/// `activation(up(x))` in place of a gated product, in shared experts too.
fn experts(routed: &Routed, shared: &Sizes, path: String, activation: Activation, bias: bool) -> ExpertsSpec {
    let score_correction = ScoreCorrectionSpec {
        names: vec![format!("{path}.gate.e_score_correction_bias")],
        required: true,
    };
    let feed_forward = shared.plain(
        &format!("{path}.shared_experts"),
        ["up_proj", "down_proj"],
        bias,
        activation,
    );
    let paths = Paths {
        hub: path.clone(),
        names: ["gate_proj", "up_proj", "down_proj"],
        module: path,
    };
    ExpertsSpec {
        gate: None,
        score_correction: Some(score_correction),
        shared: Some(SharedExpertsSpec {
            feed_forward,
            gate: None,
        }),
        ..routed.ungated_at(&paths)
    }
}

/// `layers_block_type`, or the older `hybrid_override_pattern` of M, *, - and E.
fn read_kinds(config: Config<'_>) -> Result<Vec<Kind>, Error> {
    const KEY: &str = "layers_block_type";
    const PATTERN: &str = "hybrid_override_pattern";
    if let Some(kinds) = config.texts(KEY)? {
        let kind = |kind: &str| match kind {
            "linear_attention" | "mamba" => Some(Kind::Mamba),
            "full_attention" | "attention" => Some(Kind::Attention),
            "mlp" => Some(Kind::FeedForward),
            "moe" => Some(Kind::Experts),
            _ => None,
        };
        let kinds = kinds.into_iter().map(kind).collect::<Option<Vec<Kind>>>();
        let expected = "linear_attention, full_attention, mlp or moe for every layer";
        return kinds.ok_or_else(|| config.error(KEY, expected));
    }
    let kind = |kind: char| match kind {
        'M' => Some(Kind::Mamba),
        '*' => Some(Kind::Attention),
        '-' => Some(Kind::FeedForward),
        'E' => Some(Kind::Experts),
        _ => None,
    };
    let pattern = config.optional_text(PATTERN)?.map(str::chars);
    let kinds = pattern.and_then(|pattern| pattern.map(kind).collect::<Option<Vec<Kind>>>());
    kinds.ok_or_else(|| config.error(PATTERN, "a text of M, *, - and E"))
}
