//! GPTJForCausalLM: attention and feed-forward block side by side, neighbouring values rotated together, a head with a bias.

use planish_ops::RopePairs;
use serde_json::json;

use super::Family;
use super::gpt2::read_sizes;
use super::parts::{Sizes, activation, epsilon, linear, only};
use crate::config::Config;
use crate::{
    Architecture, AttentionSpec, BranchSpec, Error, HeadSpec, LayerSpec, LinearSpec, NormSpec, RopeScaling, RopeSpec,
};

pub(super) const FAMILY: Family = Family {
    architecture: "GPTJForCausalLM",
    model_type: "gptj",
    translate,
};

fn translate(config: Config<'_>) -> Result<Architecture, Error> {
    gptj_like(config, FAMILY.architecture, |sizes, path| {
        ["q_proj", "k_proj", "v_proj"].map(|name| linear(format!("{path}.{name}"), sizes.hidden, sizes.hidden, false))
    })
}

/// A decoder of the GPT-J kind; `inputs` gives query, key and value of the attention at a path.
pub(super) fn gptj_like(
    config: Config<'_>,
    name: &str,
    inputs: impl Fn(&Sizes, &str) -> [LinearSpec; 3],
) -> Result<Architecture, Error> {
    let defaults = json!({"rotary_dim": 64});
    let config = config.with_defaults(&defaults);
    // A tied head would still have a bias of its own.
    only(config, "tie_word_embeddings", false)?;
    let sizes = read_sizes(config)?;
    let epsilon = epsilon(config, "layer_norm_epsilon", 1e-5)?;
    let activation = activation(config, "activation_function", "gelu_new")?;
    let norm = |name: String| NormSpec::layer(name, sizes.hidden, epsilon, true);
    let layer = |index: usize| {
        let path = |part: &str| format!("transformer.h.{index}.{part}");
        let output = linear(path("attn.out_proj"), sizes.hidden, sizes.hidden, false);
        let attention: AttentionSpec = sizes.attention_of(inputs(&sizes, &path("attn")), output);
        let feed_forward = sizes.plain(&path("mlp"), ["fc_in", "fc_out"], true, activation);
        Ok(LayerSpec::parallel([
            BranchSpec::new(norm(path("ln_1")), attention.into()),
            BranchSpec::new(norm(path("ln_1")), feed_forward.into()),
        ]))
    };
    let final_norm = norm("transformer.ln_f".to_owned());
    let head = HeadSpec::Separate(linear("lm_head".to_owned(), sizes.vocabulary, sizes.hidden, true));
    let rotated = config.optional_count("rotary_dim")?.unwrap_or(sizes.head_dim);
    if !rotated.is_multiple_of(2) || rotated > sizes.head_dim {
        return Err(config.error("rotary_dim", "an even number of values of a head"));
    }
    let rope = RopeSpec {
        theta: 10_000.0,
        rotated,
        pairs: RopePairs::Neighbours,
        scaling: RopeScaling::Default,
    };
    Ok(Architecture {
        ropes: vec![rope],
        ..sizes.decoder(name, "transformer.wte", layer, final_norm, head)?
    })
}
