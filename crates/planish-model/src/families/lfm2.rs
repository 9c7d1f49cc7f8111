//! Lfm2ForCausalLM: gated short convolutions with a few layers of attention between them.

use serde_json::json;

use super::Family;
use super::parts::{Sizes, epsilon, linear};
use crate::config::Config;
use crate::rope::read_rope;
use crate::{
    Activation, Architecture, AttentionSpec, BlockSpec, BranchSpec, ConvolutionSpec, Error, FeedForwardSpec, LayerSpec,
    NormSpec, ShortConvolutionSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "Lfm2ForCausalLM",
    model_type: "lfm2",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"rope_theta": 1_000_000.0, "num_key_value_heads": 8, "block_ffn_dim_multiplier": 1.0});
    let config = config.with_defaults(&defaults);
    let sizes = Sizes::with_intermediate(config, 0, intermediate(config)?)?;
    lfm2_like(config, FAMILY.architecture, sizes, |_, dense| Ok(dense.into()))
}

/// A decoder of the LFM2 kind; `feed_forward` is given the dense block of a layer, and says which it has.
pub(super) fn lfm2_like(
    config: Config<'_>,
    name: &str,
    sizes: Sizes,
    feed_forward: impl Fn(usize, FeedForwardSpec) -> Result<BlockSpec, Error>,
) -> Result<Architecture, Error> {
    let epsilon = epsilon(config, "norm_eps", 1e-5)?;
    let taps = config.optional_count("conv_L_cache")?.unwrap_or(3);
    if taps < 2 {
        return Err(config.error("conv_L_cache", "at least 2"));
    }
    let bias = config.flag("conv_bias", false)?;
    let layer = |index: usize| {
        let path = |part: &str| format!("model.layers.{index}.{part}");
        let norm = |part: &str, size| NormSpec::rms(path(part), size, epsilon);
        let mixer: BlockSpec = match is_attention(config, index)? {
            true => AttentionSpec {
                query_norm: Some(norm("self_attn.q_layernorm", sizes.head_dim)),
                key_norm: Some(norm("self_attn.k_layernorm", sizes.head_dim)),
                ..sizes.attention(
                    &path("self_attn"),
                    ["q_proj", "k_proj", "v_proj", "out_proj"],
                    false,
                    false,
                )
            }
            .into(),
            false => convolution(&path("conv"), sizes.hidden, taps, bias).into(),
        };
        let dense = sizes.gated(&path("feed_forward"), ["w1", "w3", "w2"], false, Activation::Silu);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm("operator_norm", sizes.hidden), mixer),
            BranchSpec::new(norm("ffn_norm", sizes.hidden), feed_forward(index, dense)?),
        ]))
    };
    let tied = config.flag("tie_embedding", true)?;
    let head = sizes.head(config, "lm_head", tied)?;
    let final_norm = NormSpec::rms("model.embedding_norm", sizes.hidden, epsilon);
    Ok(Architecture {
        ropes: vec![read_rope(config, sizes.head_dim)?],
        ..sizes.decoder(name, "model.embed_tokens", layer, final_norm, head)?
    })
}

/// Values between the products of the feed-forward block: as configured, or adjusted from it.
fn intermediate(config: Config<'_>) -> Result<usize, Error> {
    let configured = match config.optional_count("block_ff_dim")? {
        Some(intermediate) => intermediate,
        None => config.count("intermediate_size")?,
    };
    if !config.flag("block_auto_adjust_ff_dim", true)? {
        return Ok(configured);
    }
    let intermediate = 2 * configured / 3;
    let Some(multiplier) = config.optional_number("block_ffn_dim_multiplier")? else {
        return Ok(intermediate);
    };
    let multiple = config.optional_count("block_multiple_of")?.unwrap_or(256);
    let scaled = multiplier * intermediate as f64;
    match (1.0..=(1u64 << 31) as f64).contains(&scaled) {
        true => Ok((scaled as usize).next_multiple_of(multiple)),
        false => Err(config.error("block_ffn_dim_multiplier", "a factor that leaves a size")),
    }
}

fn is_attention(config: Config<'_>, index: usize) -> Result<bool, Error> {
    let Some(kinds) = config.texts("layer_types")? else {
        let attention = config.numbers("full_attn_idxs")?;
        return Ok(attention.is_none_or(|indices| indices.contains(&(index as f64))));
    };
    match kinds.get(index).copied() {
        Some("full_attention") => Ok(true),
        Some("conv") => Ok(false),
        _ => Err(config.error("layer_types", "full_attention or conv for every layer")),
    }
}

pub(super) fn convolution(path: &str, hidden: usize, taps: usize, bias: bool) -> ShortConvolutionSpec {
    let inputs = linear(format!("{path}.in_proj"), 3 * hidden, hidden, bias);
    ShortConvolutionSpec {
        input_gate: inputs.cut_run(0, hidden),
        output_gate: inputs.cut_run(hidden, hidden),
        input: inputs.cut_run(2 * hidden, hidden),
        convolution: ConvolutionSpec {
            name: format!("{path}.conv"),
            parts: Vec::new(),
            channels: hidden,
            taps,
            bias,
            activation: None,
            factors: Vec::new(),
        },
        output: linear(format!("{path}.out_proj"), hidden, hidden, bias),
    }
}
