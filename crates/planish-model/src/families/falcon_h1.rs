//! FalconH1ForCausalLM: Mamba 2 and attention side by side in every layer, multipliers nearly everywhere.
//!
//! A multiplier of what goes into a product multiplies the norm before it, one of what comes out the branch; the gates' too,
//! since what they gate is divided by it again.

use serde_json::json;

use super::Family;
use super::mamba2::{Factors, Mamba2};
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, LayerSpec, LogitsSpec, NormSpec, RecurrenceSpec,
    StepSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "FalconH1ForCausalLM",
    model_type: "falcon_h1",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({
        "mamba_d_ssm": 1024, "num_key_value_heads": 8, "embedding_multiplier": 1.0, "lm_head_multiplier": 1.0,
        "key_multiplier": 1.0, "attention_in_multiplier": 1.0, "attention_out_multiplier": 1.0,
        "ssm_in_multiplier": 1.0, "ssm_out_multiplier": 1.0
    });
    let config = config.with_defaults(&defaults);
    check_mlx(config)?;
    let sizes = Sizes::read(config, 0)?;
    let mamba = Mamba2::read(config, sizes.hidden, config.optional_count("mamba_d_ssm")?)?;
    let epsilon = epsilon(config, "rms_norm_eps", 1e-5)?;
    let activation = activation(config, "hidden_act", "silu")?;
    let factor = |key: &str| config.number(key).map(|factor| factor as f32);
    let flag = |key: &str| config.flag(key, false);
    let attention_bias = flag("attention_bias")?;
    let (feed_forward_bias, output_bias) = (flag("mlp_bias")?, flag("projectors_bias")?);
    let [of_gate, of_down] = factors(config, "mlp_multipliers", feed_forward_bias)?;
    let [of_ssm_gate, value, key, query, step] = factors(config, "ssm_multipliers", mamba.input_bias)?;
    let factors = Factors {
        value: value / of_ssm_gate,
        key: key / of_ssm_gate,
        query: query / of_ssm_gate,
        step: step / of_ssm_gate,
    };
    let ssm_in = factor("ssm_in_multiplier")? * of_ssm_gate;
    let (attention_in, key_factor) = (factor("attention_in_multiplier")?, factor("key_multiplier")?);
    let (ssm_out, attention_out) = (factor("ssm_out_multiplier")?, factor("attention_out_multiplier")?);
    let (has_norm, norm_first) = (flag("mamba_rms_norm")?, config.flag("mamba_norm_before_gate", true)?);
    let branch = |norm: NormSpec, into: f32, block, scale| BranchSpec {
        norm: Some(NormSpec { scale: into, ..norm }),
        block,
        post_norm: None,
        scale,
    };
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str| NormSpec::rms(path(part), sizes.hidden, epsilon);
        let mut attention: AttentionSpec = sizes.attention(
            &path("self_attn"),
            ["q_proj", "k_proj", "v_proj", "o_proj"],
            attention_bias,
            attention_bias,
        );
        attention.scale *= key_factor;
        let gated_norm = has_norm.then(|| mamba.norm(&path("mamba"), epsilon));
        let mamba = RecurrenceSpec {
            norm_first,
            ..mamba.layer(&path("mamba"), factors, gated_norm, output_bias)
        };
        let names = ["gate_proj", "up_proj", "down_proj"];
        let feed_forward = sizes.gated(&path("feed_forward"), names, feed_forward_bias, activation);
        let mixers = vec![
            branch(norm("input_layernorm"), ssm_in, mamba.into(), ssm_out),
            branch(norm("input_layernorm"), attention_in, attention.into(), attention_out),
        ];
        let feed_forward = branch(
            norm("pre_ff_layernorm"),
            of_gate,
            feed_forward.into(),
            of_down / of_gate,
        );
        let steps = [mixers, vec![feed_forward]];
        Ok(LayerSpec {
            steps: steps.into_iter().map(StepSpec::new).collect(),
        })
    };
    let final_norm = NormSpec::rms("model.final_layernorm", sizes.hidden, epsilon);
    let head = sizes.head(config, "lm_head", false)?;
    Ok(Architecture {
        embedding: EmbeddingSpec {
            scale: factor("embedding_multiplier")?,
            ..EmbeddingSpec::new("model.embed_tokens")
        },
        logits: LogitsSpec {
            scale: factor("lm_head_multiplier")?,
            softcap: None,
        },
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(FAMILY.architecture, "model.embed_tokens", layer, final_norm, head)?
    })
}

/// A list of multipliers, the gate's first. With a bias that one cannot be moved to the input.
fn factors<const N: usize>(config: Config<'_>, key: &str, bias: bool) -> Result<[f32; N], Error> {
    let Some(values) = config.numbers(key)? else {
        return Ok([1.0; N]);
    };
    let Ok(values) = <[f64; N]>::try_from(values) else {
        return Err(config.error(key, &format!("{N} numbers")));
    };
    match values[0] != 0.0 && (values[0] == 1.0 || !bias) {
        true => Ok(values.map(|value| value as f32)),
        false => Err(config.error(key, "first a number that is not 0, and is 1 where the layer has a bias")),
    }
}

/// mlx-lm multiplies most of the multipliers into the weights, and leaves out that of the keys: its checkpoints are of another
/// model, unless no multiplier does anything.
fn check_mlx(config: Config<'_>) -> Result<(), Error> {
    if config.value("quantization").is_none() {
        return Ok(());
    }
    let single = [
        "embedding_multiplier",
        "lm_head_multiplier",
        "key_multiplier",
        "attention_in_multiplier",
        "attention_out_multiplier",
        "ssm_in_multiplier",
        "ssm_out_multiplier",
    ];
    for key in single {
        if config.number(key)? != 1.0 {
            return Err(config.error(key, "1 in a checkpoint in MLX's format"));
        }
    }
    for key in ["mlp_multipliers", "ssm_multipliers"] {
        if config
            .numbers(key)?
            .is_some_and(|values| values.iter().any(|&value| value != 1.0))
        {
            return Err(config.error(key, "ones in a checkpoint in MLX's format"));
        }
    }
    Ok(())
}
