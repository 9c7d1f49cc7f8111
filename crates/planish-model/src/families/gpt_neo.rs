//! GPTNeoForCausalLM: GPT-2 with windows in every second layer and scores that are not scaled.

use serde_json::{Value, json};

use super::Family;
use super::gpt2::positions;
use super::parts::{Sizes, activation, epsilon};
use crate::config::Config;
use crate::{Architecture, AttentionSpec, BranchSpec, EmbeddingSpec, Error, LayerSpec, NormSpec};

pub(super) const FAMILY: Family = Family {
    architecture: "GPTNeoForCausalLM",
    model_type: "gpt_neo",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"attention_types": [[["global", "local"], 12]]});
    let config = config.with_defaults(&defaults);
    let sizes = read_sizes(config)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let activation = activation(config, "activation_function", "gelu_new")?;
    let window = config.optional_count("window_size")?.unwrap_or(256);
    let local = local_layers(config, sizes.layers)?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.h.{index}.{part}");
        let names = ["q_proj", "k_proj", "v_proj", "out_proj"];
        let attention = AttentionSpec {
            rope: None,
            scale: 1.0,
            window: local[index].then_some(window),
            ..sizes.attention(&path("attn.attention"), names, false, true)
        };
        let feed_forward = sizes.plain(&path("mlp"), ["c_fc", "c_proj"], true, activation);
        Ok(LayerSpec::sequential([
            BranchSpec::new(norm(path("ln_1")), attention.into()),
            BranchSpec::new(norm(path("ln_2")), feed_forward.into()),
        ]))
    };
    let final_norm = norm("transformer.ln_f".to_owned());
    let head = sizes.head(config, "lm_head", true)?;
    let decoder = sizes.decoder(FAMILY.architecture, "transformer.wte", layer, final_norm, head)?;
    Ok(Architecture {
        embedding: EmbeddingSpec {
            positions: Some(positions(&sizes)),
            ..decoder.embedding
        },
        ..decoder
    })
}

fn read_sizes(config: Config<'_>) -> Result<Sizes, Error> {
    let (hidden, heads) = (config.count("hidden_size")?, config.count("num_heads")?);
    if !hidden.is_multiple_of(heads) {
        return Err(config.error("num_heads", "a divisor of hidden_size"));
    }
    Ok(Sizes {
        hidden,
        vocabulary: config.count("vocab_size")?,
        intermediate: config.optional_count("intermediate_size")?.unwrap_or(4 * hidden),
        heads,
        kv_heads: heads,
        head_dim: hidden / heads,
        layers: config.layers("num_layers")?,
        context: config.count("max_position_embeddings")?,
    })
}

/// By `attention_types`, a list of runs of kinds and how often each is repeated.
fn local_layers(config: Config<'_>, layers: usize) -> Result<Vec<bool>, Error> {
    const KEY: &str = "attention_types";
    let kind = |kind: &Value| match kind.as_str() {
        Some("global") => Some(false),
        Some("local") => Some(true),
        _ => None,
    };
    let run = |run: &Value| {
        let kinds: Vec<bool> = run.get(0)?.as_array()?.iter().map(kind).collect::<Option<_>>()?;
        let times = run.get(1)?.as_u64().filter(|&times| times <= layers as u64)?;
        Some(kinds.repeat(times as usize))
    };
    let runs = config
        .value(KEY)
        .and_then(Value::as_array)
        .and_then(|runs| runs.iter().map(run).collect::<Option<Vec<_>>>());
    runs.map(|runs| runs.concat())
        .filter(|local| local.len() == layers)
        .ok_or_else(|| config.error(KEY, "runs of global and local with their counts, for every layer"))
}
