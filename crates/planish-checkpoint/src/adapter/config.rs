//! adapter_config.json: whose adapter it is, ranks and scales, and the names of its tensors.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::dialect::Keys;
use crate::folder::parse_object;
use crate::{Checksum, Error};

/// What a tensor is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part {
    A,
    B,
    Lengths,
}

/// The facts of an adapter.
pub(super) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
    /// Of the whole file.
    pub checksum: u64,
    /// The file of its tensors.
    pub file: &'static str,
    /// Matrices with columns as rows, as mlx-lm has them.
    pub transposed: bool,
    /// DoRA: rows have lengths.
    pub lengths: bool,
}

impl Config {
    pub fn read(folder: &Path) -> Result<Config, Error> {
        let path = folder.join("adapter_config.json");
        let data = std::fs::read(&path).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::missing(&path, "an adapter folder has one"),
            _ => Error::io(&path)(error),
        })?;
        let values = parse_object(&path, &data)?;
        let mut checksum = Checksum::default();
        checksum.update(&data);
        let is_peft = values.contains_key("peft_type");
        let mut config = Config {
            path,
            values,
            checksum: checksum.value(),
            file: if is_peft {
                "adapter_model.safetensors"
            } else {
                "adapters.safetensors"
            },
            transposed: !is_peft,
            lengths: false,
        };
        config.lengths = match is_peft {
            true => config.peft()?,
            false => config.mlx()?,
        };
        Ok(config)
    }

    fn keys(&self) -> Keys<'_> {
        Keys {
            file: &self.path,
            key: "adapter",
            values: &self.values,
        }
    }

    /// Whether it is DoRA; refuses what else would change the model.
    fn peft(&self) -> Result<bool, Error> {
        let keys = self.keys();
        let kind = keys.text("peft_type")?.unwrap_or_default();
        if kind != "LORA" {
            return Err(keys.unsupported(
                "peft_type",
                &format!("is \"{kind}\", which planish does not read; it reads \"LORA\""),
            ));
        }
        if let Some(bias) = keys.text("bias")?.filter(|bias| *bias != "none") {
            return Err(keys.unsupported("bias", &format!("is \"{bias}\"; planish reads adapters with \"none\"")));
        }
        let others = [
            "alora_invocation_tokens",
            "fan_in_fan_out",
            "layer_replication",
            "lora_bias",
            "modules_to_save",
            "target_parameters",
            "trainable_token_indices",
            "use_qalora",
        ];
        for key in others {
            let is_nothing = |value: &Value| match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => items.is_empty(),
                Value::Object(items) => items.is_empty(),
                _ => false,
            };
            if let Some(value) = self.values.get(key).filter(|value| !is_nothing(value)) {
                return Err(keys.unsupported(key, &format!("is {value}, which planish does not read")));
            }
        }
        Ok(keys.boolean("use_dora")?.unwrap_or(false))
    }

    /// As [`Config::peft`], for mlx-lm.
    fn mlx(&self) -> Result<bool, Error> {
        let keys = self.keys();
        match keys.text("fine_tune_type")?.unwrap_or("lora") {
            "lora" => Ok(false),
            "dora" => Ok(true),
            other => {
                let what = format!("is \"{other}\", which planish does not read; it reads \"lora\" and \"dora\"");
                Err(keys.unsupported("fine_tune_type", &what))
            }
        }
    }

    /// The module of a tensor, under the model's own name, and which of its tensors it is.
    pub fn part<'a>(&self, name: &'a str) -> Option<(&'a str, Part)> {
        let (name, parts): (&str, &[(&str, Part)]) = match self.transposed {
            true => (
                name,
                &[(".lora_a", Part::A), (".lora_b", Part::B), (".m", Part::Lengths)],
            ),
            false => (
                name.strip_prefix("base_model.model.")?,
                &[
                    (".lora_A.weight", Part::A),
                    (".lora_B.weight", Part::B),
                    (".lora_magnitude_vector", Part::Lengths),
                    (".lora_magnitude_vector.weight", Part::Lengths),
                ],
            ),
        };
        parts
            .iter()
            .find_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, *part)))
    }

    /// The rank and what `B A` is multiplied by.
    pub fn rank_and_scale(&self, module: &str) -> Result<(usize, f32), Error> {
        let keys = self.keys();
        let rank_of = |value: &Value| {
            usize::try_from(value.as_u64()?)
                .ok()
                .filter(|rank| (1..=1 << 20).contains(rank))
        };
        if self.transposed {
            let parameters = keys.get("lora_parameters").unwrap_or(&Value::Null);
            let found = parameters
                .get("rank")
                .and_then(rank_of)
                .zip(parameters.get("scale").and_then(Value::as_f64));
            let (rank, scale) =
                found.ok_or_else(|| keys.malformed("lora_parameters", "an object with rank and scale", parameters))?;
            return Ok((rank, scale as f32));
        }
        let null = Value::Null;
        let given = |pattern: &str, key: &str| self.pattern(pattern, module).or(keys.get(key)).unwrap_or(&null);
        let (rank, alpha) = (given("rank_pattern", "r"), given("alpha_pattern", "lora_alpha"));
        let whole = rank_of(rank).ok_or_else(|| keys.malformed("r", "a rank", rank))?;
        let alpha = alpha
            .as_f64()
            .ok_or_else(|| keys.malformed("lora_alpha", "a number", alpha))?;
        let divisor = match keys.boolean("use_rslora")?.unwrap_or(false) {
            true => (whole as f64).sqrt(),
            false => whole as f64,
        };
        Ok((whole, (alpha / divisor) as f32))
    }

    /// The value of the first key of a pattern that ends the module's path, as PEFT matches it where no key is an expression.
    fn pattern(&self, pattern: &str, module: &str) -> Option<&Value> {
        let patterns = self.values.get(pattern)?.as_object()?;
        let ends = |key: &str| {
            module
                .strip_suffix(key)
                .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
        };
        patterns.iter().find(|(key, _)| ends(key)).map(|(_, value)| value)
    }
}
