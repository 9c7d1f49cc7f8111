//! Metadata of a model, and what of config.json it is made of. Families of which the converter of llama.cpp changes nothing but the
//! order of rows are written; each key of rotation that has no place in the file is refused.

use serde_json::{Map, Value};

use super::super::architecture::Architecture;
use super::super::architectures::all;
use super::super::row_order::RowOrder;

/// Classes of config.json that are written, and the class whose row says how.
const CLASSES: [(&str, &str); 6] = [
    ("LlamaForCausalLM", "LlamaForCausalLM"),
    ("MistralForCausalLM", "LlamaForCausalLM"),
    ("Qwen2ForCausalLM", "Qwen2ForCausalLM"),
    ("Qwen3ForCausalLM", "Qwen3ForCausalLM"),
    ("GraniteForCausalLM", "GraniteForCausalLM"),
    ("SmolLM3ForCausalLM", "SmolLM3ForCausalLM"),
];

/// Numbers of Granite's config and of the file, and what they are where the config does not say it.
const SCALES: [(&str, &str, f64); 4] = [
    ("attention_multiplier", "attention.scale", 1.0),
    ("embedding_multiplier", "embedding_scale", 1.0),
    ("residual_multiplier", "residual_scale", 1.0),
    ("logits_scaling", "logit_scale", 1.0),
];

/// Every fourth layer of SmolLM3 is not rotated, which llama.cpp knows without being told.
fn check_rotated_layers(config: &Map<String, Value>) -> Result<(), String> {
    let Some(layers) = config.get("no_rope_layers").and_then(Value::as_array) else {
        return match config
            .get("no_rope_layer_interval")
            .is_none_or(|every| *every == 4 || every.is_null())
        {
            true => Ok(()),
            false => Err("`no_rope_layer_interval` is not 4, and llama.cpp computes no other".to_owned()),
        };
    };
    let fits = |(layer, rotated): (usize, &Value)| *rotated == u8::from(!(layer + 1).is_multiple_of(4));
    match layers.iter().enumerate().all(fits) {
        true => Ok(()),
        false => Err("`no_rope_layers` are not every fourth layer, and llama.cpp computes no others".to_owned()),
    }
}

/// Keys and values, as the file has them.
#[derive(Default)]
pub(super) struct Pairs {
    pub count: u64,
    pub bytes: Vec<u8>,
}

/// Numbers of types: `Kind` of `metadata.rs` has their list.
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

impl Pairs {
    fn begin(&mut self, key: &str, kind: u32) {
        self.count += 1;
        text(&mut self.bytes, key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn array(&mut self, key: &str, kind: u32, count: usize) {
        self.begin(key, ARRAY);
        self.bytes.extend(kind.to_le_bytes());
        self.bytes.extend((count as u64).to_le_bytes());
    }

    pub fn u32(&mut self, key: &str, value: u32) {
        self.begin(key, U32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.begin(key, F32);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn flag(&mut self, key: &str, value: bool) {
        self.begin(key, BOOL);
        self.bytes.push(value.into());
    }

    pub fn text(&mut self, key: &str, value: &str) {
        self.begin(key, TEXT);
        text(&mut self.bytes, value);
    }

    pub fn texts(&mut self, key: &str, values: &[String]) {
        self.array(key, TEXT, values.len());
        values.iter().for_each(|value| text(&mut self.bytes, value));
    }

    pub fn floats(&mut self, key: &str, values: &[f32]) {
        self.array(key, F32, values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }

    pub fn integers(&mut self, key: &str, values: &[i32]) {
        self.array(key, I32, values.len());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }
}

/// Length and letters.
pub(super) fn text(bytes: &mut Vec<u8>, value: &str) {
    bytes.extend((value.len() as u64).to_le_bytes());
    bytes.extend(value.as_bytes());
}

/// What the order of rows depends on.
pub(super) struct Heads {
    head_dim: usize,
}

impl Heads {
    pub fn order(&self, architecture: &Architecture, name: &str) -> RowOrder {
        let rotated = name.contains(".q_proj.") || name.contains(".k_proj.");
        match architecture.neighbours && rotated {
            true => RowOrder::Neighbours {
                head_dim: self.head_dim,
            },
            false => RowOrder::AsStored,
        }
    }
}

/// The row of a config's class.
pub(super) fn architecture(config: &Map<String, Value>) -> Result<(&'static Architecture, Heads), String> {
    let class = config.get("architectures").and_then(|names| names.get(0)?.as_str());
    let row = CLASSES
        .iter()
        .find(|(name, _)| Some(*name) == class)
        .map(|(_, row)| *row);
    let found = row.and_then(|row| all().find(|architecture| architecture.class == row));
    let found = found.ok_or_else(|| {
        let known: Vec<&str> = CLASSES.iter().map(|(name, _)| *name).collect();
        format!(
            "`architectures` is {}, which is not written to GGUF; written are {}",
            class.unwrap_or("absent"),
            known.join(", ")
        )
    })?;
    let head_dim = head_dim(config)?;
    Ok((found, Heads { head_dim }))
}

pub(super) fn count(config: &Map<String, Value>, key: &str) -> Result<Option<usize>, String> {
    let Some(value) = config.get(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let count = value
        .as_u64()
        .and_then(|count| i32::try_from(count).ok())
        .filter(|&count| count > 0);
    let count = count.ok_or_else(|| format!("`{key}`: expected a positive integer, found {value}"))?;
    Ok(usize::try_from(count).ok())
}

pub(super) fn need(config: &Map<String, Value>, key: &str) -> Result<usize, String> {
    count(config, key)?.ok_or_else(|| format!("config.json lacks the key `{key}`"))
}

pub(super) fn head_dim(config: &Map<String, Value>) -> Result<usize, String> {
    let head_dim = match count(config, "head_dim")? {
        Some(head_dim) => head_dim,
        None => need(config, "hidden_size")? / need(config, "num_attention_heads")?,
    };
    match head_dim > 0 && head_dim.is_multiple_of(2) {
        true => Ok(head_dim),
        false => Err(format!("`head_dim`: expected a positive even number, found {head_dim}")),
    }
}

/// The section that says how positions are rotated.
fn rope(config: &Map<String, Value>) -> Option<&Map<String, Value>> {
    let section = |key: &str| config.get(key).and_then(Value::as_object);
    section("rope_parameters").or_else(|| section("rope_scaling"))
}

fn rope_kind(config: &Map<String, Value>) -> &str {
    let kind = |key: &str| rope(config)?.get(key)?.as_str();
    kind("rope_type").or_else(|| kind("type")).unwrap_or("default")
}

/// Keys of the model.
pub(super) fn add(config: &Map<String, Value>, architecture: &Architecture, pairs: &mut Pairs) -> Result<(), String> {
    let name = architecture.name;
    pairs.text("general.architecture", name);
    pairs.text("general.type", "model");
    pairs.u32("general.quantization_version", 2);
    let heads = need(config, "num_attention_heads")?;
    let head_dim = head_dim(config)?;
    let counts = [
        ("block_count", need(config, "num_hidden_layers")?),
        ("context_length", need(config, "max_position_embeddings")?),
        ("embedding_length", need(config, "hidden_size")?),
        ("feed_forward_length", need(config, "intermediate_size")?),
        ("attention.head_count", heads),
        (
            "attention.head_count_kv",
            count(config, "num_key_value_heads")?.unwrap_or(heads),
        ),
        ("attention.key_length", head_dim),
        ("attention.value_length", head_dim),
        ("rope.dimension_count", head_dim),
        ("vocab_size", need(config, "vocab_size")?),
    ];
    for (key, value) in counts {
        pairs.u32(&format!("{name}.{key}"), value as u32);
    }
    let number = |section: Option<&Map<String, Value>>, key: &str| section?.get(key)?.as_f64();
    let epsilon = number(Some(config), "rms_norm_eps").ok_or("config.json lacks the key `rms_norm_eps`")?;
    pairs.f32(&format!("{name}.attention.layer_norm_rms_epsilon"), epsilon as f32);
    match architecture.name {
        "granite" => SCALES.iter().for_each(|(key, stored, default)| {
            let value = number(Some(config), key).unwrap_or(*default);
            pairs.f32(&format!("{name}.{stored}"), value as f32);
        }),
        "smollm3" => check_rotated_layers(config)?,
        _ => {}
    }
    let theta = number(rope(config), "rope_theta").or_else(|| number(Some(config), "rope_theta"));
    pairs.f32(&format!("{name}.rope.freq_base"), theta.unwrap_or(10000.0) as f32);
    match rope_kind(config) {
        "default" | "llama3" => {}
        "linear" => {
            let factor = number(rope(config), "factor").ok_or("the linear scaling of positions lacks its `factor`")?;
            pairs.text(&format!("{name}.rope.scaling.type"), "linear");
            pairs.f32(&format!("{name}.rope.scaling.factor"), factor as f32);
        }
        other => {
            return Err(format!(
                "positions are scaled by `{other}`, which is not written to GGUF"
            ));
        }
    }
    let window = config.get("sliding_window").and_then(Value::as_u64);
    let used = config.get("use_sliding_window").and_then(Value::as_bool) != Some(false);
    match window {
        Some(window) if used => Err(format!("the sliding window of {window} is not written to GGUF")),
        _ => Ok(()),
    }?;
    let activation = config.get("hidden_act").and_then(Value::as_str).unwrap_or("silu");
    match activation {
        "silu" => Ok(()),
        other => Err(format!("`hidden_act` is {other}, and llama.cpp computes silu")),
    }
}

/// By how much the wavelengths of llama3's positions are longer, which GGUF has as a tensor. // (head_dim / 2)
pub(super) fn rope_factors(config: &Map<String, Value>) -> Result<Option<Vec<f32>>, String> {
    if rope_kind(config) != "llama3" {
        return Ok(None);
    }
    let section = rope(config);
    let number = |key: &str| {
        let found = section.and_then(|section| section.get(key)?.as_f64());
        found.ok_or_else(|| format!("the llama3 scaling of positions lacks `{key}`"))
    };
    let (factor, low, high) = (
        number("factor")?,
        number("low_freq_factor")?,
        number("high_freq_factor")?,
    );
    let original = number("original_max_position_embeddings")?;
    let theta = section.and_then(|section| section.get("rope_theta")?.as_f64());
    let theta = theta.or_else(|| config.get("rope_theta")?.as_f64()).unwrap_or(10000.0);
    let size = head_dim(config)?;
    let factors = (0..size / 2).map(|index| {
        let wave = 2.0 * std::f64::consts::PI * theta.powf(2.0 * index as f64 / size as f64);
        let share = ((original / wave - low) / (high - low)).clamp(0.0, 1.0);
        (1.0 / ((1.0 - share) / factor + share)) as f32
    });
    Ok(Some(factors.collect()))
}
