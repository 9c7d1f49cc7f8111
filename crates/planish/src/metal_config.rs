//! `MetalConfig` of transformers: the same fields, defaults, checks and dictionary form.

use planish_checkpoint::Checkpoint;
use planish_format::{Encoder, Packing};
use planish_quantize::{Method, Recipe, Target};
use serde_json::{Map, Value};

use crate::Error;

/// How to quantize in transformers' `metal` dialect.
///
/// ```
/// use planish::MetalConfig;
///
/// let config = MetalConfig { bits: 8, ..MetalConfig::default() };
/// assert_eq!(
///     serde_json::Value::from(config.to_dict()).to_string(),
///     r#"{"quant_method":"metal","bits":8,"group_size":64,"modules_to_not_convert":null}"#
/// );
/// assert!(MetalConfig { bits: 3, ..MetalConfig::default() }.validate().is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetalConfig {
    /// Bits of a code: 2, 4 or 8.
    pub bits: u32,
    /// Weights along a row that share one scale and one bias; must divide the columns of a layer for it to be packed.
    pub group_size: usize,
    /// Names or patterns of modules that stay plain. `None` keeps the output head plain; a list names all exceptions.
    pub modules_to_not_convert: Option<Vec<String>>,
    /// Unpack packed weights while loading, and pack none. Not part of the dictionary form.
    pub dequantize: bool,
}

impl Default for MetalConfig {
    /// 4 bits, groups of 64.
    fn default() -> MetalConfig {
        MetalConfig {
            bits: 4,
            group_size: Packing::DEFAULT_GROUP,
            modules_to_not_convert: None,
            dequantize: false,
        }
    }
}

impl MetalConfig {
    /// # Errors
    /// [`Error::Config`] if transformers would refuse bits or group size.
    pub fn validate(&self) -> Result<(), Error> {
        if !Target::Metal.widths().contains(&self.bits) {
            return Err(Error::config("bits", self.bits, "2, 4 or 8"));
        }
        if self.group_size == 0 {
            return Err(Error::config("group_size", 0, "a positive number"));
        }
        Ok(())
    }

    /// The value of `quantization_config` in config.json.
    pub fn to_dict(&self) -> Map<String, Value> {
        let mut dict = Map::new();
        dict.insert("quant_method".into(), "metal".into());
        dict.insert("bits".into(), self.bits.into());
        dict.insert("group_size".into(), self.group_size.into());
        let modules = self.modules_to_not_convert.clone();
        dict.insert(
            "modules_to_not_convert".into(),
            modules.map_or(Value::Null, Value::from),
        );
        dict
    }

    /// [`MetalConfig::to_dict`] as text: keys in order, indented by two, ended by a line break.
    pub fn to_json_string(&self) -> String {
        let sorted: std::collections::BTreeMap<String, Value> = self.to_dict().into_iter().collect();
        format!("{:#}\n", Value::from_iter(sorted))
    }

    /// Reads a `quantization_config`. Absent keys take their defaults; unknown ones are ignored, as transformers does.
    ///
    /// # Errors
    /// [`Error::Config`] for another `quant_method`, a value of the wrong type or out of range.
    pub fn from_dict(dict: &Map<String, Value>) -> Result<MetalConfig, Error> {
        let mut config = MetalConfig::default();
        for (key, value) in dict.iter() {
            let wrong = |expected| Error::config(key, value, expected);
            match key.as_str() {
                "quant_method" if value != "metal" => return Err(wrong("\"metal\"")),
                "bits" => {
                    let bits = value.as_u64().and_then(|bits| u32::try_from(bits).ok());
                    config.bits = bits.ok_or_else(|| wrong("2, 4 or 8"))?;
                }
                "group_size" => {
                    let size = value.as_u64().and_then(|size| usize::try_from(size).ok());
                    config.group_size = size.ok_or_else(|| wrong("a positive number"))?;
                }
                "modules_to_not_convert" => {
                    config.modules_to_not_convert = names(value).ok_or_else(|| wrong("a list of names, or null"))?;
                }
                "dequantize" => config.dequantize = value.as_bool().ok_or_else(|| wrong("true or false"))?,
                _ => {}
            }
        }
        config.validate()?;
        Ok(config)
    }

    /// What to do with each layer of this checkpoint; `None` if nothing is to be packed.
    pub(crate) fn recipe(&self, checkpoint: &Checkpoint) -> Result<Option<Recipe>, Error> {
        self.validate()?;
        if self.dequantize {
            return Ok(None);
        }
        let packing = Packing::new(self.bits, self.group_size)
            .ok_or_else(|| Error::config("group_size", self.group_size, "a multiple of 8"))?;
        // A list names all exceptions: the output head, if there is a separate one, is packed unless listed.
        let include_head = self.modules_to_not_convert.is_some() && checkpoint.entry("lm_head.weight").is_some();
        Ok(Some(Recipe {
            exclude: self.modules_to_not_convert.clone().unwrap_or_default(),
            include_head,
            method: Method::Peer(Encoder::Transformers),
            ..Recipe::new(Target::Metal, packing)
        }))
    }
}

fn names(value: &Value) -> Option<Option<Vec<String>>> {
    match value {
        Value::Null => Some(None),
        Value::Array(list) => list
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .map(Some),
        _ => None,
    }
}
