//! Facts about a source checkpoint that every conversion asks for.

use planish_checkpoint::{Checkpoint, Dialect, Layout, Method};
use planish_format::FloatType;
use serde_json::{Map, Value};

use crate::pack::{default_type, type_name};

/// The float type of everything that a conversion writes, or `None` to leave each tensor's own. A GGUF file mixes types (norms
/// in F32, scales in F16), so its tensors get one: that of its scales. Those of other quantizers get the one that config.json names,
/// as scales may be f32 there only to hold products exactly.
pub(crate) fn float_type(checkpoint: &Checkpoint, asked: Option<FloatType>) -> Option<FloatType> {
    if asked.is_some() || !is_respelled(checkpoint) {
        return asked;
    }
    if method(checkpoint).is_some() {
        return checkpoint.float_type();
    }
    let scale_type = checkpoint.entries().iter().find_map(|entry| match entry.layout {
        Layout::Packed { scale_type, .. } => Some(scale_type),
        _ => None,
    });
    match scale_type {
        Some(scale_type) => Some(default_type(scale_type)),
        None => from_name(checkpoint.config().get("torch_dtype")?.as_str()?),
    }
}

/// The float type called `name` in config.json.
fn from_name(name: &str) -> Option<FloatType> {
    [FloatType::F32, FloatType::F16, FloatType::BF16]
        .into_iter()
        .find(|float_type| type_name(*float_type) == name)
}

/// Whether the checkpoint is a single file: its packed weights are then GGUF blocks and not a dialect's modules.
pub(crate) fn is_gguf(checkpoint: &Checkpoint) -> bool {
    checkpoint.path().is_file()
}

/// The quantizer whose tensors the checkpoint has.
pub(crate) fn method(checkpoint: &Checkpoint) -> Option<&Method> {
    match checkpoint.dialect() {
        Dialect::Method(method) => Some(method),
        _ => None,
    }
}

/// Whether weights are stored in a form that is read and not written: their floats are what one begins with.
pub(crate) fn is_respelled(checkpoint: &Checkpoint) -> bool {
    is_gguf(checkpoint) || method(checkpoint).is_some()
}

/// The config for the output: in the output's dialect, with the type that its plain tensors now have.
pub(crate) fn config(
    mut config: Map<String, Value>,
    dialect: &Dialect,
    float_type: Option<FloatType>,
) -> Map<String, Value> {
    dialect.write_config(&mut config);
    if let Some(float_type) = float_type {
        // transformers 5 writes `dtype`, earlier versions and mlx-lm know `torch_dtype`.
        let key = if config.contains_key("dtype") {
            "dtype"
        } else {
            "torch_dtype"
        };
        config.insert(key.to_owned(), type_name(float_type).into());
    }
    config
}

/// The dialect in words, e.g. `metal, 4 bits, group 64`; `None` for a plain checkpoint.
pub(crate) fn packed_as(dialect: &Dialect) -> Option<String> {
    match dialect {
        Dialect::Plain => None,
        Dialect::Metal { packing, .. } => Some(format!("metal, {} bits, group {}", packing.bits(), packing.group())),
        Dialect::Mlx { default, .. } => Some(format!(
            "MLX, {} bits, group {}, {}",
            default.bits,
            default.group,
            default.mode.name()
        )),
        Dialect::Method(method) => Some(method.to_string()),
    }
}
