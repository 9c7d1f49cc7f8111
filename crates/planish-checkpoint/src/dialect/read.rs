//! The dialect that config.json names, checked key by key.

use std::path::Path;

use planish_format::Packing;
use serde_json::{Map, Value};

use super::keys::{Keys, malformed};
use super::{Dialect, Mode, Override, Scheme};
use crate::methods::{self, Method};
use crate::{Error, dtype};

impl Dialect {
    /// The dialect of a config.json. As in mlx-lm `quantization` goes before `quantization_config`, but
    /// `quant_method: "metal"` goes before both. Sections of `text_config` count where the top level has none.
    ///
    /// # Errors
    /// Methods and modes that are not read, and values that cannot be; the message names the key.
    pub fn from_config(config: &Map<String, Value>, file: &Path) -> Result<Dialect, Error> {
        let mut sections = Vec::new();
        let text_config = config.get("text_config").and_then(Value::as_object);
        for (level, prefix) in [(Some(config), ""), (text_config, "text_config.")] {
            for key in ["quantization", "quantization_config"] {
                let Some(value) = level.and_then(|level| level.get(key)).filter(|value| !value.is_null()) else {
                    continue;
                };
                sections.push((format!("{prefix}{key}"), value));
            }
        }
        let sections = sections
            .iter()
            .map(|(key, value)| match value {
                Value::Object(values) => Ok(Keys { file, key, values }),
                other => Err(malformed(file, key, "an object", other)),
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let Some(first) = sections.first() else {
            return Ok(Dialect::Plain);
        };
        let metal = sections
            .iter()
            .find(|section| section.values.get("quant_method") == Some(&Value::from("metal")));
        if let Some(metal) = metal {
            return metal.metal();
        }
        if !first.is_mlx()
            && let Some(method) = Method::read(first, dtype::of_config(config))?
        {
            return Ok(Dialect::Method(method));
        }
        if let Some(method) = first
            .values
            .get("quant_method")
            .filter(|method| !method.is_null() && !first.is_mlx())
        {
            let what = format!(
                "`{}.quant_method` is {method}, which planish does not read; \
                 it reads \"metal\" (transformers), MLX, {} and plain checkpoints",
                first.key,
                methods::NAMES
            );
            return Err(Error::unsupported(file, what));
        }
        first.mlx()
    }
}

impl Keys<'_> {
    /// mlx-lm looks at `quantization` without asking for a method.
    fn is_mlx(&self) -> bool {
        self.key.ends_with("quantization")
    }

    /// Missing keys take the defaults of transformers' `MetalConfig`.
    fn metal(&self) -> Result<Dialect, Error> {
        let bits = self.integer("bits")?.unwrap_or(4);
        if !Dialect::METAL_WIDTHS.iter().any(|&width| u64::from(width) == bits) {
            return Err(self.malformed("bits", "2, 4 or 8", &bits.into()));
        }
        let group = self.integer("group_size")?.unwrap_or(Packing::DEFAULT_GROUP as u64);
        let packing = self.packing(bits, group)?;
        let modules_to_not_convert = match self.values.get("modules_to_not_convert") {
            None | Some(Value::Null) => None,
            Some(value) => {
                let names = value
                    .as_array()
                    .and_then(|names| names.iter().map(as_string).collect::<Option<Vec<_>>>());
                Some(names.ok_or_else(|| self.malformed("modules_to_not_convert", "a list of names", value))?)
            }
        };
        Ok(Dialect::Metal {
            packing,
            modules_to_not_convert,
        })
    }

    fn mlx(&self) -> Result<Dialect, Error> {
        for key in ["bits", "group_size"] {
            if !self.values.contains_key(key) {
                let what = format!("`{}` lacks the key `{key}`", self.key);
                return Err(Error::malformed(self.file, what));
            }
        }
        let default = self.scheme()?;
        let mut overrides = Vec::new();
        for (path, value) in self.values {
            let found = match value {
                Value::Bool(false) => Override::Plain,
                Value::Bool(true) => Override::Default,
                Value::Object(values) => {
                    let key = format!("{}.{path}", self.key);
                    Override::Packed(
                        Keys {
                            file: self.file,
                            key: &key,
                            values,
                        }
                        .scheme()?,
                    )
                }
                // Keys that tools add beside bits, group_size and mode.
                _ => continue,
            };
            overrides.push((path.clone(), found));
        }
        Ok(Dialect::Mlx { default, overrides })
    }

    /// Mode, bits and group; null or absent takes the mode's default.
    fn scheme(&self) -> Result<Scheme, Error> {
        let mode = match self.values.get("mode") {
            None | Some(Value::Null) => Mode::Affine,
            Some(value) => {
                let modes = [Mode::Affine, Mode::Mxfp4, Mode::Mxfp8, Mode::Nvfp4];
                let known = modes.into_iter().find(|mode| value.as_str() == Some(mode.name()));
                known.ok_or_else(|| self.malformed("mode", "affine, mxfp4, mxfp8 or nvfp4", value))?
            }
        };
        let (default_bits, default_group) = mode.defaults();
        let bits = self.integer("bits")?.unwrap_or(default_bits.into());
        let group = self.integer("group_size")?.unwrap_or(default_group as u64);
        if mode == Mode::Affine {
            return Ok(Scheme::affine(self.packing(bits, group)?));
        }
        if (bits, group) != (default_bits.into(), default_group as u64) {
            let what = format!(
                "`{}`: expected {default_bits} bits in groups of {default_group} with mode {}, \
                 found {bits} bits in groups of {group}",
                self.key,
                mode.name()
            );
            return Err(Error::malformed(self.file, what));
        }
        Ok(Scheme {
            mode,
            bits: default_bits,
            group: default_group,
        })
    }

    fn packing(&self, bits: u64, group: u64) -> Result<Packing, Error> {
        let narrow = u32::try_from(bits).ok().filter(|&bits| Packing::new(bits, 8).is_some());
        let bits = narrow.ok_or_else(|| self.malformed("bits", "2, 3, 4, 5, 6 or 8", &bits.into()))?;
        let packing = usize::try_from(group).ok().and_then(|group| Packing::new(bits, group));
        packing.ok_or_else(|| self.malformed("group_size", "a positive multiple of 8", &group.into()))
    }
}

fn as_string(value: &Value) -> Option<String> {
    value.as_str().map(str::to_string)
}
