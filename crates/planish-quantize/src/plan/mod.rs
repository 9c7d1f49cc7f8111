//! What becomes of every tensor of a checkpoint: is it packed, with which bits and group, or why not. No weight is read.

mod metal;
mod mlx;

use std::collections::{HashMap, HashSet};
use std::fmt;

use planish_checkpoint::mlx::Arranged;
use planish_checkpoint::{Entry, Layout, Part};
use planish_format::{FloatMode, FloatType, Packing};
use serde_json::{Map, Value};

pub(crate) use self::metal::{Listed, modules_to_not_convert};
use crate::layers::Classifier;
use crate::{Error, Patterns, Recipe, Target};

/// Why a tensor stays plain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Not a matrix of weights: a norm, a bias, a table.
    NotAMatrix,
    /// The dialect's own library does not pack this kind of layer (embeddings, output head, experts, routers).
    NotPackedByDialect,
    /// The user excluded it.
    Excluded,
    /// The group does not divide the columns.
    NotDivisible {
        /// Columns of the weight.
        cols: usize,
        /// The group asked for.
        group: usize,
    },
    /// Its values are not F32, F16 or BF16.
    NotFloat,
}

impl fmt::Display for Reason {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::NotAMatrix => write!(to, "not a matrix of weights"),
            Reason::NotPackedByDialect => write!(to, "the format does not pack this kind of layer"),
            Reason::Excluded => write!(to, "excluded"),
            Reason::NotDivisible { cols, group } => write!(to, "a group of {group} does not divide its {cols} columns"),
            Reason::NotFloat => write!(to, "its values are not F32, F16 or BF16"),
        }
    }
}

impl Reason {
    /// Whether one would expect the tensor to be packed.
    pub(crate) fn is_notable(self) -> bool {
        !matches!(self, Reason::NotAMatrix | Reason::NotPackedByDialect)
    }
}

/// What becomes of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The bytes of a plain tensor as they are.
    Copy,
    /// Plain floats of a type.
    Cast(FloatType),
    /// Packed, with scales of a type.
    Quantize(Packing, FloatType),
    /// Packed as floats of a mode of MLX, from floats of a type.
    Floats(FloatMode, FloatType),
    /// The codes, scales and biases of a packed weight as they are.
    Move,
    /// The codes of a packed weight in this packing, of more bits and the same group, with its scales and biases as they are.
    Widen(Packing),
    /// Stored blocks of 4-bit floats with their powers of two, as MLX's mode mxfp4 has them.
    Blocks,
}

impl Fate {
    /// Whether it ends up packed.
    pub fn is_packed(self) -> bool {
        !matches!(self, Fate::Copy | Fate::Cast(_))
    }

    /// An entry that ends up plain, with a float type asked for or each entry's own.
    pub(crate) fn plain(entry: &Entry, float_type: Option<FloatType>) -> Fate {
        match (&entry.layout, float_type) {
            (Layout::Packed { .. }, asked) => Fate::Cast(asked.unwrap_or_else(|| scale_type(entry))),
            (Layout::Plain(dtype), Some(asked)) if dtype.float_type().is_some() && !stays_f32(&entry.name) => {
                Fate::Cast(asked)
            }
            _ => Fate::Copy,
        }
    }
}

/// The type that the scales of an entry have without a wish.
fn scale_type(entry: &Entry) -> FloatType {
    match &entry.layout {
        Layout::Plain(dtype) => dtype.float_type().unwrap_or(FloatType::F32),
        Layout::Packed { scale_type, .. } => *scale_type,
    }
}

/// Tensors whose small differences decide something; mlx-lm and transformers keep them in f32 as well.
fn stays_f32(name: &str) -> bool {
    ["e_score_correction_bias", "expert_bias", "A_log"]
        .iter()
        .any(|part| name.contains(part))
}

/// One tensor of the output, or the three of a packed one.
#[derive(Clone, Debug)]
pub struct OutputTensor {
    /// Its name in the dialect of the output.
    pub name: String,
    /// As plain floats, outermost first.
    pub shape: Vec<usize>,
    /// What it takes of the entries of the checkpoint.
    pub parts: Vec<Part>,
    /// What becomes of the parts.
    pub fate: Fate,
    /// Why a layer is not packed.
    pub reason: Option<Reason>,
}

impl OutputTensor {
    pub(crate) fn new(tensor: Arranged, fate: Fate) -> OutputTensor {
        OutputTensor {
            name: tensor.name,
            shape: tensor.shape,
            parts: tensor.parts,
            fate,
            reason: None,
        }
    }

    /// The module that owns the tensor: its name without `.weight`.
    pub fn module(&self) -> &str {
        module(&self.name)
    }

    /// Bits and group of a tensor that is to be packed.
    pub fn packing(&self) -> Option<Packing> {
        match self.fate {
            Fate::Quantize(packing, _) => Some(packing),
            Fate::Copy | Fate::Cast(_) | Fate::Floats(..) | Fate::Move | Fate::Widen(_) | Fate::Blocks => None,
        }
    }

    /// Why the tensor is not packed, if one would expect it to be.
    pub(crate) fn notable(&self) -> Option<Reason> {
        self.reason.filter(|reason| reason.is_notable())
    }
}

fn module(name: &str) -> &str {
    name.strip_suffix(".weight").unwrap_or(name)
}

/// What a recipe means for one checkpoint.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The tensors of the output: those of the checkpoint, but for what the dialect's library names or arranges otherwise.
    pub tensors: Vec<OutputTensor>,
    /// What a metal config lists as `modules_to_not_convert`; `None` when transformers' own default says the same.
    pub modules_to_not_convert: Option<Vec<String>>,
}

impl Plan {
    /// The tensor of the output called `name`.
    pub fn tensor(&self, name: &str) -> Option<&OutputTensor> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    /// How many tensors of the output are packed.
    pub fn packed_count(&self) -> usize {
        self.tensors.iter().filter(|tensor| tensor.fate.is_packed()).count()
    }

    /// Bits and group of the entries that are to be packed, by their indices.
    pub fn packings(&self) -> HashMap<usize, Packing> {
        let mut packings = HashMap::new();
        for tensor in &self.tensors {
            for part in &tensor.parts {
                match tensor.packing() {
                    Some(packing) => packings.insert(part.entry, packing),
                    None => packings.remove(&part.entry),
                };
            }
        }
        packings
    }
}

impl Recipe {
    /// Decides every entry.
    ///
    /// # Errors
    /// What the dialect cannot hold, a pattern that is not a regular expression, a recipe that packs nothing.
    pub fn plan(&self, config: &Map<String, Value>, entries: &[Entry]) -> Result<Plan, Error> {
        self.check()?;
        let classifier = Classifier::new(config, entries);
        let exclude = Patterns::new(&self.exclude)?;
        let planner = Planner {
            recipe: self,
            exclude,
            classifier,
            config,
        };
        let plan = match self.target {
            Target::Metal => planner.metal(entries)?,
            Target::Mlx => planner.mlx(entries)?,
        };
        self.check_allocation(&plan, entries)?;
        if plan.packed_count() == 0 {
            let what = format!(
                "none of the {} tensors would be packed: there is no linear layer whose columns a group of {} divides{}",
                entries.len(),
                self.packing.group(),
                if self.exclude.is_empty() {
                    ""
                } else {
                    " and that is not excluded"
                },
            );
            return Err(Error::source(what, None));
        }
        Ok(plan)
    }
}

impl Recipe {
    /// Refuses names that no layer of the model has: a slip of the pen would go unnoticed.
    fn check_allocation(&self, plan: &Plan, entries: &[Entry]) -> Result<(), Error> {
        let Some(allocation) = &self.allocation else {
            return Ok(());
        };
        let of_model = entries.iter().map(|entry| module(&entry.name));
        let known: HashSet<&str> = plan.tensors.iter().map(OutputTensor::module).chain(of_model).collect();
        let unknown = allocation
            .layers()
            .iter()
            .find(|(name, _)| !known.contains(name.as_str()));
        unknown.map_or(Ok(()), |(name, _)| {
            Err(Error::Allocation {
                what: format!("it names `{name}`, and the model has no such layer"),
            })
        })
    }
}

struct Planner<'a> {
    recipe: &'a Recipe,
    exclude: Patterns,
    classifier: Classifier,
    config: &'a Map<String, Value>,
}

impl Planner<'_> {
    /// A tensor with its fate: packed, or plain for a reason.
    fn decided(&self, tensor: Arranged, entry: &Entry, packing: Result<Packing, Reason>) -> OutputTensor {
        let float_type = self.recipe.dtype;
        let fate = match packing {
            Ok(packing) => {
                let float_type = float_type.unwrap_or_else(|| scale_type(entry));
                match self.recipe.floats {
                    Some(mode) if packing == self.recipe.packing => Fate::Floats(mode, float_type),
                    _ => Fate::Quantize(packing, float_type),
                }
            }
            Err(_) => Fate::plain(entry, float_type),
        };
        OutputTensor {
            reason: packing.err(),
            ..OutputTensor::new(tensor, fate)
        }
    }

    /// The packing that an exception gives a module; `Some(None)` where it stays plain.
    fn overridden(&self, module: &str) -> Option<Option<Packing>> {
        let mut overrides = self.recipe.overrides.iter();
        let found = overrides.find(|exception| exception.pattern.is_match(module).unwrap_or(false));
        found.map(|exception| exception.packing)
    }
}

impl Planner<'_> {
    /// That columns are right for codes that are floats, if they are to be.
    fn fit_floats(&self, shape: &[usize], packing: Packing) -> Result<Packing, Reason> {
        let cols = shape.last().copied().unwrap_or(0);
        match self.recipe.floats.is_some() && packing == self.recipe.packing && !cols.is_multiple_of(FLOATS_COLS) {
            true => Err(Reason::NotDivisible {
                cols,
                group: FLOATS_COLS,
            }),
            false => Ok(packing),
        }
    }
}

/// Columns of a layer whose codes are floats: our own form of them, in 5 bits, fills words only so.
const FLOATS_COLS: usize = 32;

/// The packing, if a tensor of this shape, made of this entry, can be packed so.
fn fit(entry: &Entry, shape: &[usize], packing: Packing) -> Result<Packing, Reason> {
    let cols = shape.last().copied().unwrap_or(0);
    let group = packing.group();
    let float = match entry.layout {
        Layout::Plain(dtype) => dtype.float_type().is_some(),
        Layout::Packed { .. } => true,
    };
    match () {
        () if !float => Err(Reason::NotFloat),
        () if cols == 0 || !cols.is_multiple_of(group) => Err(Reason::NotDivisible { cols, group }),
        () => Ok(packing),
    }
}
