//! A dialect's part of config.json, written as transformers and mlx-lm write it.

use serde_json::{Map, Value, json};

use super::{Dialect, Override, Scheme};

impl Dialect {
    /// Replaces what `config` says about packing by this dialect's words.
    pub fn write_config(&self, config: &mut Map<String, Value>) {
        for key in ["quantization", "quantization_config", "compression_config"] {
            config.shift_remove(key);
            if let Some(Value::Object(text_config)) = config.get_mut("text_config") {
                text_config.shift_remove(key);
            }
        }
        match self {
            Dialect::Plain | Dialect::Method(_) => {}
            Dialect::Metal {
                packing,
                modules_to_not_convert,
            } => {
                let section = json!({
                    "quant_method": "metal",
                    "bits": packing.bits(),
                    "group_size": packing.group(),
                    "modules_to_not_convert": modules_to_not_convert,
                });
                config.insert("quantization_config".into(), section);
            }
            Dialect::Mlx { default, overrides } => {
                let mut section = scheme(*default);
                for (path, found) in overrides {
                    section.insert(path.clone(), override_value(*found));
                }
                config.insert("quantization".into(), Value::Object(section.clone()));
                config.insert("quantization_config".into(), Value::Object(section));
            }
        }
    }
}

fn override_value(found: Override) -> Value {
    match found {
        Override::Plain => Value::Bool(false),
        Override::Default => Value::Bool(true),
        Override::Packed(packed) => Value::Object(scheme(packed)),
    }
}

fn scheme(scheme: Scheme) -> Map<String, Value> {
    let mut section = Map::new();
    section.insert("group_size".into(), scheme.group.into());
    section.insert("bits".into(), scheme.bits.into());
    section.insert("mode".into(), scheme.mode.name().into());
    section
}
