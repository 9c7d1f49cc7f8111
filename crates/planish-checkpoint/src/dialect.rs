//! How a checkpoint stores packed modules: the names of the parts, and what config.json says about bits and groups.
//!
//! | dialect | tensors of module P | config.json |
//! |---|---|---|
//! | transformers metal | `P.weight` u32, `P.scales`, `P.qbiases` | `quantization_config` with `quant_method: "metal"` |
//! | MLX | `P.weight` u32, `P.scales`, `P.biases` | `quantization`, repeated as `quantization_config` without `quant_method` |

mod keys;
mod read;
mod write;

use planish_format::{FloatMode, Packing};

pub(crate) use self::keys::Keys;
use crate::Method;

/// The dialect of a checkpoint, with everything needed to write its part of config.json again.
#[derive(Clone, Debug, PartialEq)]
pub enum Dialect {
    /// No packed modules.
    Plain,
    /// transformers "metal": one packing for all packed modules.
    Metal {
        /// Bits (2, 4 or 8) and group.
        packing: Packing,
        /// As transformers matches it; `None` is its default (output head and tied weights stay plain).
        modules_to_not_convert: Option<Vec<String>>,
    },
    /// MLX, also mixed: a default and what differs from it by module path.
    Mlx {
        /// For modules that have scales and no override.
        default: Scheme,
        /// By module path, in the order of the file.
        overrides: Vec<(String, Override)>,
    },
    /// As another quantizer stored it; read only.
    Method(Method),
}

impl Dialect {
    /// The bits that a code may have in the metal dialect.
    pub const METAL_WIDTHS: [u32; 3] = [2, 4, 8];
}

/// What an MLX config says about one module.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Override {
    /// `false`: stays plain.
    Plain,
    /// `true`: packed as the default says.
    Default,
    /// Packed in this way.
    Packed(Scheme),
}

/// Mode, bits and group as MLX writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scheme {
    /// How codes become weights.
    pub mode: Mode,
    /// Bits per code.
    pub bits: u32,
    /// Codes per scale.
    pub group: usize,
}

/// How codes become weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `scale * code + bias`.
    Affine,
    /// Codes are 4-bit floats, scales powers of two over 32.
    Mxfp4,
    /// Codes are 8-bit floats, scales powers of two over 32.
    Mxfp8,
    /// Codes are 4-bit floats, scales 8-bit floats over 16.
    Nvfp4,
}

impl Mode {
    /// The name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Affine => "affine",
            Mode::Mxfp4 => "mxfp4",
            Mode::Mxfp8 => "mxfp8",
            Mode::Nvfp4 => "nvfp4",
        }
    }

    /// The mode whose codes are these floats.
    pub fn of_floats(mode: FloatMode) -> Mode {
        match mode {
            FloatMode::Mxfp4 => Mode::Mxfp4,
            FloatMode::Mxfp8 => Mode::Mxfp8,
            FloatMode::Nvfp4 => Mode::Nvfp4,
        }
    }

    /// Bits and group where the config gives none, as MLX has them.
    fn defaults(self) -> (u32, usize) {
        match self {
            Mode::Affine => (4, 64),
            Mode::Mxfp4 => (4, 32),
            Mode::Mxfp8 => (8, 32),
            Mode::Nvfp4 => (4, 16),
        }
    }
}

impl Scheme {
    /// Affine with this packing.
    pub fn affine(packing: Packing) -> Scheme {
        Scheme {
            mode: Mode::Affine,
            bits: packing.bits(),
            group: packing.group(),
        }
    }

    /// Codes that are floats.
    pub fn floats(mode: FloatMode) -> Scheme {
        Scheme {
            mode: Mode::of_floats(mode),
            bits: mode.bits(),
            group: mode.group(),
        }
    }

    /// Bits and group of an affine scheme; `None` for the other modes.
    pub fn packing(self) -> Option<Packing> {
        match self.mode {
            Mode::Affine => Packing::new(self.bits, self.group),
            Mode::Mxfp4 | Mode::Mxfp8 | Mode::Nvfp4 => None,
        }
    }
}

impl Dialect {
    /// What follows the module path in the name of the biases that belong to the scales; `None` without packed modules.
    pub fn biases_suffix(&self) -> Option<&'static str> {
        match self {
            Dialect::Plain | Dialect::Method(_) => None,
            Dialect::Metal { .. } => Some(".qbiases"),
            Dialect::Mlx { .. } => Some(".biases"),
        }
    }

    /// The `format` that peers expect in the metadata of safetensors files.
    pub fn safetensors_format(&self) -> &'static str {
        match self {
            Dialect::Plain | Dialect::Metal { .. } | Dialect::Method(_) => "pt",
            Dialect::Mlx { .. } => "mlx",
        }
    }

    /// The key of config.json that this dialect is read from, for messages.
    pub(crate) fn config_key(&self) -> &'static str {
        match self {
            Dialect::Plain | Dialect::Metal { .. } | Dialect::Method(_) => "quantization_config",
            Dialect::Mlx { .. } => "quantization",
        }
    }

    /// The config's word on one module: an override by path (MLX only), and the scheme if it is packed.
    pub(crate) fn scheme(&self, module: &str) -> (Option<Override>, Option<Scheme>) {
        match self {
            Dialect::Plain | Dialect::Method(_) => (None, None),
            Dialect::Metal { packing, .. } => (None, Some(Scheme::affine(*packing))),
            Dialect::Mlx { default, overrides } => {
                let found = overrides
                    .iter()
                    .find(|(path, _)| path == module)
                    .map(|(_, found)| *found);
                let scheme = match found {
                    None | Some(Override::Default) => Some(*default),
                    Some(Override::Plain) => None,
                    Some(Override::Packed(scheme)) => Some(scheme),
                };
                (found, scheme)
            }
        }
    }
}
