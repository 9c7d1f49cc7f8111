//! Keys of config.json for models whose layers, or heads, are of several kinds: latent attention, delta nets, Mamba 2, Gemma 4.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::architecture::Key;
use super::config::{Facts, Keys, Sizes};
use super::fault::Fault;

/// Sizes of the heads of latent attention.
pub(super) struct Lengths {
    /// Of a key, with the part that is rotated.
    pub key: usize,
    pub value: usize,
}

/// By the keys of files since 2025, else by those before.
pub(super) fn latent_lengths(keys: &Keys) -> Result<Lengths, Fault> {
    match keys.count("attention.key_length_mla")? {
        Some(key) => Ok(Lengths {
            key,
            value: keys.need_count("attention.value_length_mla")?,
        }),
        None => Ok(Lengths {
            key: keys.need_count("attention.key_length")?,
            value: keys.need_count("attention.value_length")?,
        }),
    }
}

/// The keys of config.json for one of these kinds; `None` for a key of another.
pub(super) fn keys(key: &Key, keys: &Keys, facts: &Facts, sizes: &Sizes) -> Result<Option<Map<String, Value>>, Fault> {
    let found = match *key {
        Key::LayerKinds(name, kinds) => json!({ name: layer_kinds(facts, sizes, kinds) }),
        Key::Latent => latent(keys)?,
        Key::Groups => groups(keys)?,
        Key::DeltaNet => delta_net(keys)?,
        Key::Mamba2 => mamba2(keys, facts)?,
        Key::Gemma4 => gemma4(keys, facts, sizes)?,
        _ => return Ok(None),
    };
    match found {
        Value::Object(found) => Ok(Some(found)),
        _ => Ok(None),
    }
}

/// Which layers have a tensor.
pub(super) fn layers_with(facts: &Facts, sizes: &Sizes, tensor: &str) -> Vec<bool> {
    let names: HashSet<&str> = facts.header.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let has = |layer: usize| names.contains(&*format!("blk.{layer}.{tensor}"));
    (0..sizes.layers).map(has).collect()
}

fn layer_kinds<'a>(facts: &Facts, sizes: &Sizes, [first, second]: [&'a str; 2]) -> Vec<&'a str> {
    let attends = layers_with(facts, sizes, "attn_q.weight").into_iter();
    attends.map(|attends| if attends { first } else { second }).collect()
}

fn latent(keys: &Keys) -> Result<Value, Fault> {
    let (lengths, rotated) = (latent_lengths(keys)?, keys.need_count("rope.dimension_count")?);
    let Some(unrotated) = lengths.key.checked_sub(rotated).filter(|&rest| rest > 0) else {
        let expected = format!("less than the key length {}", lengths.key);
        return Err(Fault::key(&keys.key("rope.dimension_count"), &expected, rotated));
    };
    Ok(json!({
        "kv_lora_rank": keys.need_count("attention.kv_lora_rank")?, "q_lora_rank": keys.count("attention.q_lora_rank")?,
        "qk_nope_head_dim": unrotated, "qk_rope_head_dim": rotated, "qk_head_dim": lengths.key,
        "v_head_dim": lengths.value, "head_dim": rotated,
    }))
}

fn groups(keys: &Keys) -> Result<Value, Fault> {
    let (count, kept) = (
        keys.count("expert_group_count")?,
        keys.count("expert_group_used_count")?,
    );
    let count = count.unwrap_or(1);
    let method = if count > 1 { "group_limited_greedy" } else { "greedy" };
    Ok(json!({ "n_group": count, "topk_group": kept.unwrap_or(1), "topk_method": method }))
}

/// The size of each of `count` heads that have `total` values together.
fn head_size(keys: &Keys, total: &str, count: usize) -> Result<usize, Fault> {
    let values = keys.need_count(total)?;
    match values.is_multiple_of(count) {
        true => Ok(values / count),
        false => Err(Fault::key(
            &keys.key(total),
            &format!("a multiple of {count} heads"),
            values,
        )),
    }
}

/// Key heads, value heads, and values of each.
pub(super) struct DeltaHeads {
    pub keys: usize,
    pub values: usize,
    pub key_dim: usize,
    pub value_dim: usize,
}

impl DeltaHeads {
    pub fn read(keys: &Keys) -> Result<DeltaHeads, Fault> {
        let values = keys.need_count("ssm.time_step_rank")?;
        let heads = DeltaHeads {
            keys: keys.need_count("ssm.group_count")?,
            values,
            key_dim: keys.need_count("ssm.state_size")?,
            value_dim: head_size(keys, "ssm.inner_size", values)?,
        };
        match heads.values.is_multiple_of(heads.keys) {
            true => Ok(heads),
            false => {
                let expected = format!("a divisor of {} value heads", heads.values);
                Err(Fault::key(&keys.key("ssm.group_count"), &expected, heads.keys))
            }
        }
    }
}

fn delta_net(keys: &Keys) -> Result<Value, Fault> {
    let heads = DeltaHeads::read(keys)?;
    Ok(json!({
        "linear_conv_kernel_dim": keys.need_count("ssm.conv_kernel")?, "linear_num_key_heads": heads.keys,
        "linear_num_value_heads": heads.values, "linear_key_head_dim": heads.key_dim,
        "linear_value_head_dim": heads.value_dim,
    }))
}

fn mamba2(keys: &Keys, facts: &Facts) -> Result<Value, Fault> {
    let heads = keys.need_count("ssm.time_step_rank")?;
    let inner = keys.need_count("ssm.inner_size")?;
    let hidden = keys.need_count("embedding_length")?;
    Ok(json!({
        "mamba_d_conv": keys.need_count("ssm.conv_kernel")?, "mamba_d_state": keys.need_count("ssm.state_size")?,
        "mamba_n_groups": keys.need_count("ssm.group_count")?, "mamba_n_heads": heads,
        "mamba_d_head": head_size(keys, "ssm.inner_size", heads)?,
        "mamba_expand": if inner.is_multiple_of(hidden) { json!(inner / hidden) } else { json!(inner as f64 / hidden as f64) },
        "mamba_conv_bias": facts.header.has_in_layers("ssm_conv1d.bias"),
        "mamba_proj_bias": facts.header.has_in_layers("ssm_in.bias"),
    }))
}

/// `key_length` is that of layers that see all positions, of which a part is rotated: the others' factors are beyond use.
fn gemma4(keys: &Keys, facts: &Facts, sizes: &Sizes) -> Result<Value, Fault> {
    let head_dim = keys.need_count("attention.key_length_swa")?;
    let slides = super::config::layer_slides(keys, sizes, 6);
    let layers = slides.len().min(sizes.layers);
    let heads = keys.of_layers("attention.head_count_kv")?.unwrap_or_default();
    let heads_of = |slide: bool| {
        let layer = slides.iter().position(|slides| *slides == slide)?;
        heads.get(layer).or(heads.first()).copied()
    };
    let shared = keys
        .metadata
        .count(&keys.key("attention.shared_kv_layers"))?
        .unwrap_or(0);
    let own = layers.saturating_sub(shared);
    let has_values = layers_with(facts, sizes, "attn_v.weight");
    let values_are_keys = (0..own).any(|layer| !slides[layer] && !has_values[layer]);
    let part = facts.rope_factors.as_ref().map_or(1.0, |factors| {
        factors.iter().filter(|&&factor| factor == 1.0).count() as f64 / factors.len().max(1) as f64
    });
    let widths = keys.of_layers("feed_forward_length")?.unwrap_or_default();
    let theta = |name: &str, default: f64| keys.float(name).map(|theta| theta.unwrap_or(default));
    let kinds: Vec<&str> = (slides.iter())
        .map(|slides| if *slides { "sliding_attention" } else { "full_attention" })
        .collect();
    Ok(json!({
        "head_dim": head_dim, "global_head_dim": keys.need_count("attention.key_length")?,
        "num_key_value_heads": heads_of(true), "num_global_key_value_heads": heads_of(false),
        "attention_k_eq_v": values_are_keys, "num_kv_shared_layers": shared, "layer_types": kinds,
        "hidden_size_per_layer_input":
            keys.metadata.count(&keys.key("embedding_length_per_layer_input"))?.unwrap_or(0),
        "use_double_wide_mlp": widths.last() != widths.first(),
        "sliding_window": keys.need_count("attention.sliding_window")?,
        "enable_moe_block": facts.architecture.has_experts(),
        "rope_scaling": Value::Null,
        "rope_parameters": {
            "full_attention": {
                "rope_type": "proportional", "rope_theta": theta("rope.freq_base", 1e6)?, "partial_rotary_factor": part
            },
            "sliding_attention": { "rope_type": "default", "rope_theta": theta("rope.freq_base_swa", 10000.0)? },
        },
    }))
}
