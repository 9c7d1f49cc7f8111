//! Stored tensors to entries: the parts of a packed module become one entry, and what the parts are is checked against
//! config.json.

use std::collections::HashSet;
use std::path::Path;

use planish_format::{FloatType, PackedShape, Packing};

use crate::dialect::Override;
use crate::folder::tensors::{Stored, Tensors};
use crate::methods::{self, Listed, Respelled, RespelledByName, modes};
use crate::order::natural_order;
use crate::{Dialect, Dtype, Entry, Error, Layout, Scheme};

/// Every weight once, in the natural order of names (layer 2 before layer 10).
pub(crate) fn entries(tensors: &Tensors, dialect: &Dialect, config_file: &Path) -> Result<Listed, Error> {
    if let Dialect::Method(method) = dialect {
        return methods::entries(tensors, method, config_file);
    }
    let modules = Modules {
        tensors,
        dialect,
        config_file,
    };
    let mut entries = Vec::new();
    let mut parts = Vec::new();
    let mut respelled = RespelledByName::new();
    for (name, stored) in tensors.iter() {
        let packed = match name.strip_suffix(".weight") {
            Some(module) => modules.packed(module, stored)?,
            None => None,
        };
        if let Some(Found { entry, others, mode }) = packed {
            respelled.extend(mode.map(|mode| (entry.name.clone(), mode)));
            entries.push(entry);
            parts.extend(others);
        } else {
            entries.push(Entry {
                name: name.to_string(),
                shape: stored.shape.clone(),
                layout: Layout::Plain(stored.dtype),
                stored_bytes: stored.size_bytes(),
            });
        }
    }
    let parts: HashSet<String> = parts.into_iter().collect();
    entries.retain(|entry| !parts.contains(&entry.name));
    entries.sort_by(|left, right| natural_order(&left.name, &right.name));
    Ok(Listed {
        entries,
        respelled,
        parts: Vec::new(),
    })
}

/// A packed module.
struct Found {
    entry: Entry,
    /// The names of its tensors beside `.weight`.
    others: Vec<String>,
    /// How it is read, if not as our own format.
    mode: Option<Respelled>,
}

struct Modules<'a> {
    tensors: &'a Tensors,
    dialect: &'a Dialect,
    config_file: &'a Path,
}

impl Modules<'_> {
    /// A packed module; `None` if it is plain.
    fn packed(&self, module: &str, weight: &Stored) -> Result<Option<Found>, Error> {
        let words = weight.dtype == Dtype::U32;
        match (
            self.tensors.get(&format!("{module}.scales")),
            self.dialect.scheme(module),
        ) {
            (None, (said, scheme)) => {
                let announced = matches!(said, Some(Override::Default | Override::Packed(_)));
                if announced || (words && scheme.is_some()) {
                    let what = format!("tensor `{module}.weight` is packed, but there is no tensor `{module}.scales`");
                    return Err(self.contradiction(weight, what));
                }
                Ok(None)
            }
            (Some(_), (said, None)) if words => Err(self.not_announced(module, said)),
            (Some(_), (_, None)) => Ok(None),
            (Some(_), (_, Some(_))) if !words => {
                let what = format!(
                    "tensor `{module}.weight`: expected U32 words, because there is a tensor `{module}.scales`; found {}",
                    weight.dtype
                );
                Err(self.contradiction(weight, what))
            }
            (Some(scales), (_, Some(scheme))) => {
                let parts = Parts {
                    modules: self,
                    module,
                    weight,
                    scales,
                    scheme,
                };
                parts.entry().map(Some)
            }
        }
    }

    /// The tensors are packed and config.json says otherwise, or nothing.
    fn not_announced(&self, module: &str, said: Option<Override>) -> Error {
        let says = match said {
            Some(_) => format!("`{}` says that `{module}` is plain (false)", self.dialect.config_key()),
            None => "it has no `quantization_config` or `quantization` that says so".to_string(),
        };
        let what = format!("{says}, but tensor `{module}.weight` is packed: U32 with `{module}.scales`");
        Error::malformed(self.config_file, what)
    }

    fn contradiction(&self, stored: &Stored, what: String) -> Error {
        Error::malformed(self.tensors.file(stored), what)
    }
}

/// The tensors of one packed module.
struct Parts<'a> {
    modules: &'a Modules<'a>,
    module: &'a str,
    weight: &'a Stored, // (.., cols * bits / 32)
    scales: &'a Stored, // (.., cols / group)
    scheme: Scheme,
}

impl Parts<'_> {
    fn entry(&self) -> Result<Found, Error> {
        match self.scheme.packing() {
            Some(packing) => self.affine(packing),
            None => self.small_floats(),
        }
    }

    fn affine(&self, packing: Packing) -> Result<Found, Error> {
        let module = self.module;
        let suffix = self.modules.dialect.biases_suffix().unwrap_or(".biases");
        let biases_name = format!("{module}{suffix}");
        let Some(biases) = self.modules.tensors.get(&biases_name) else {
            return Err(self.missing_biases(&biases_name));
        };
        let Some(scale_type) = self.scales.dtype.float_type() else {
            let what = format!(
                "tensor `{module}.scales`: expected F32, F16 or BF16, found {}",
                self.scales.dtype
            );
            return Err(self.modules.contradiction(self.scales, what));
        };
        if (biases.dtype, &biases.shape) != (self.scales.dtype, &self.scales.shape) {
            let what = format!(
                "tensor `{biases_name}`: expected {} {:?} as `{module}.scales`, found {} {:?}",
                self.scales.dtype, self.scales.shape, biases.dtype, biases.shape
            );
            return Err(self.modules.contradiction(biases, what));
        }
        let shape = self.shape()?;
        self.check_size(&shape, packing, scale_type)?;
        let stored_bytes = self.weight.size_bytes() + self.scales.size_bytes() + biases.size_bytes();
        let layout = Layout::Packed { packing, scale_type };
        let entry = Entry {
            name: format!("{module}.weight"),
            shape,
            layout,
            stored_bytes,
        };
        Ok(Found {
            entry,
            others: vec![format!("{module}.scales"), biases_name],
            mode: None,
        })
    }

    /// That the format can hold the matrix at all.
    fn check_size(&self, shape: &[usize], packing: Packing, scale_type: FloatType) -> Result<(), Error> {
        let contradiction = |what: &dyn std::fmt::Display| {
            self.modules
                .contradiction(self.weight, format!("tensor `{}.weight`: {what}", self.module))
        };
        let Some((&cols, leading)) = shape.split_last() else {
            return Ok(());
        };
        let rows = leading.iter().try_fold(1usize, |rows, &next| rows.checked_mul(next));
        let rows = rows.ok_or_else(|| contradiction(&format!("shape {shape:?} overflows")))?;
        PackedShape::new(rows, cols, packing, scale_type).map_err(|error| contradiction(&error))?;
        Ok(())
    }

    /// The shape as plain floats. The columns are known from the scales, so the words can be checked.
    fn shape(&self) -> Result<Vec<usize>, Error> {
        let module = self.module;
        let Scheme { bits, group, .. } = self.scheme;
        let weight = &self.weight.shape;
        let scales = &self.scales.shape;
        let too_flat = || {
            let what = format!("tensor `{module}.weight`: expected at least 2 sizes, found {weight:?}");
            self.modules.contradiction(self.weight, what)
        };
        let (&words, leading) = weight.split_last().ok_or_else(too_flat)?;
        if leading.is_empty() {
            return Err(too_flat());
        }
        let (groups, scales_leading) = scales
            .split_last()
            .map_or((0, &[][..]), |(&groups, rest)| (groups, rest));
        if leading != scales_leading {
            let what = format!(
                "tensor `{module}.scales`: expected shape [.., rows, cols / {group}] with the rows of \
                 `{module}.weight` {weight:?}, found {scales:?}"
            );
            return Err(self.modules.contradiction(self.scales, what));
        }
        let cols = groups.checked_mul(group);
        let expected = cols
            .and_then(|cols| cols.checked_mul(bits as usize))
            .map(|bits| bits / 32);
        let (Some(cols), true) = (cols, expected == Some(words)) else {
            let expected = expected.map_or("fewer".to_string(), |words| words.to_string());
            let what = format!(
                "tensor `{module}.weight`: expected {expected} words in a row ({groups} groups in `{module}.scales`, \
                 and config.json says {bits} bits in groups of {group}), found {words}"
            );
            return Err(self.modules.contradiction(self.weight, what));
        };
        Ok([leading, &[cols]].concat())
    }

    /// Biases under the other dialect's name are the likely reason: say so.
    fn missing_biases(&self, biases_name: &str) -> Error {
        let module = self.module;
        let other = if biases_name.ends_with(".qbiases") {
            ".biases"
        } else {
            ".qbiases"
        };
        let hint = match self.modules.tensors.get(&format!("{module}{other}")) {
            Some(_) => format!("; found `{module}{other}`, a name of the other dialect: correct config.json"),
            None => String::new(),
        };
        let what = format!("tensor `{module}.scales` has no tensor `{biases_name}` beside it{hint}");
        self.modules.contradiction(self.scales, what)
    }

    /// A mode without biases.
    fn small_floats(&self) -> Result<Found, Error> {
        let module = self.module;
        if self.scales.dtype != Dtype::U8 {
            let what = format!("tensor `{module}.scales`: expected U8, found {}", self.scales.dtype);
            return Err(self.modules.contradiction(self.scales, what));
        }
        let shape = self.shape()?;
        let (layout, mode) = modes::respelled(self.scheme.mode, module, &shape).map_err(|what| {
            self.modules
                .contradiction(self.weight, format!("tensor `{module}.weight`: {what}"))
        })?;
        let entry = Entry {
            name: format!("{module}.weight"),
            shape,
            layout,
            stored_bytes: self.weight.size_bytes() + self.scales.size_bytes(),
        };
        Ok(Found {
            entry,
            others: vec![format!("{module}.scales")],
            mode: Some(mode),
        })
    }
}
