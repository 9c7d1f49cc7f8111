//! Adapters of low rank, merged into weights as they are read, or read beside packed ones: PEFT's LoRA and DoRA, mlx-lm's.
//!
//! LoRA: `W + s B A`. DoRA: of that, each row scaled to the length that the adapter says. Sums are f32.

mod config;
mod low_rank;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use planish_format::{FloatType, PackedMatrix, dequantize, memory};
use rayon::prelude::*;

use self::config::Config;
pub use self::low_rank::{Beside, LowRank};
use crate::folder::map::{MappedFile, Mapping};
use crate::folder::tensors::{Stored, Tensors};
use crate::{Entry, Error, Layout, Tensor, Weight};

/// An opened adapter.
pub(crate) struct Adapter {
    folder: PathBuf,
    tensors: Tensors,
    /// The checksum of its config.
    config: u64,
    /// By the names of entries.
    changes: HashMap<String, Change>,
}

/// What an adapter does to one weight.
struct Change {
    /// The weight without it.
    stored: Entry,
    /// (rank, columns), or with columns as rows.
    a: String,
    /// (rows, rank), or with columns as rows.
    b: String,
    /// The lengths of rows. // (rows)
    lengths: Option<String>,
    rank: usize,
    scale: f32,
    /// As mlx-lm stores them: `a` (columns, rank), `b` (rank, rows).
    transposed: bool,
    float_type: FloatType,
}

/// The tensors of a module.
#[derive(Default)]
struct Parts {
    a: Option<String>,
    b: Option<String>,
    lengths: Option<String>,
}

impl Adapter {
    /// Opens the adapter in `folder` for these entries, of which those that it changes become plain, of the type of `plain` where they
    /// were packed.
    pub fn open(folder: &Path, entries: &mut [Entry], plain: Option<FloatType>) -> Result<Adapter, Error> {
        let config = Config::read(folder)?;
        let file = folder.join(config.file);
        let mut tensors = Tensors::default();
        tensors.add(&file, MappedFile::open(&file)?)?;
        let mut modules: BTreeMap<String, Parts> = BTreeMap::new();
        for (name, _) in tensors.iter() {
            let (module, part) = config.part(name).ok_or_else(|| {
                let what = format!("tensor `{name}` is no part of an adapter that planish reads; it reads LoRA and DoRA of linear layers");
                Error::unsupported(&file, what)
            })?;
            let parts = modules.entry(module.to_owned()).or_default();
            let place = match part {
                config::Part::A => &mut parts.a,
                config::Part::B => &mut parts.b,
                config::Part::Lengths => &mut parts.lengths,
            };
            *place = Some(name.to_owned());
        }
        if modules.is_empty() {
            return Err(Error::malformed(&file, "the adapter holds no tensors"));
        }
        let by_name: HashMap<String, usize> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.name.clone(), index))
            .collect();
        let mut changes = HashMap::new();
        for (module, parts) in modules {
            let name = format!("{module}.weight");
            let entry = by_name.get(&name).map(|&index| &mut entries[index]).ok_or_else(|| {
                let what = format!(
                    "the adapter changes `{module}`, and the model has no weight `{name}`: it is for another model"
                );
                Error::malformed(&file, what)
            })?;
            let opened = Opened {
                file: &file,
                tensors: &tensors,
                config: &config,
            };
            let change = opened.change(&module, parts, entry, plain)?;
            entry.layout = Layout::Plain(change.float_type.into());
            changes.insert(name, change);
        }
        Ok(Adapter {
            folder: folder.to_path_buf(),
            tensors,
            config: config.checksum,
            changes,
        })
    }

    /// What its config is, for a run that is to go on with what another made with it.
    pub fn identity(&self) -> (String, String) {
        (
            "adapter_config.json of the adapter".to_owned(),
            format!("{:016x}", self.config),
        )
    }

    /// What the adapter does to a weight, if anything.
    pub fn change(&self, entry: &Entry) -> Option<Adapted<'_>> {
        let change = self.changes.get(&entry.name)?;
        Some(Adapted { adapter: self, change })
    }

    /// A weight that the adapter changes, as it is stored.
    pub fn stored(&self, entry: &Entry) -> Option<&Entry> {
        Some(&self.changes.get(&entry.name)?.stored)
    }

    /// Its files.
    pub fn mappings(&self) -> Vec<Arc<Mapping>> {
        self.tensors.mappings()
    }
}

/// A weight that an adapter changes.
pub(crate) struct Adapted<'a> {
    adapter: &'a Adapter,
    change: &'a Change,
}

impl Adapted<'_> {
    /// The weight without the adapter, as it is stored.
    pub fn stored(&self) -> &Entry {
        &self.change.stored
    }

    /// The weight with what the adapter does to it.
    pub fn applied(&self, weight: Weight) -> Result<Weight, Error> {
        let change = self.change;
        let entry = &change.stored;
        let factors = self.factors()?;
        let base = self.base(&weight)?;
        let (rows, cols) = entry.rows_cols();
        let size = change.float_type.size_bytes();
        let mut data = memory::filled("weights", rows * cols * size, 0);
        data.par_chunks_exact_mut((cols * size).max(1))
            .enumerate()
            .for_each_init(
                || vec![0.0; cols],
                |values, (row, out)| {
                    if let Some(factor) = self.row(row, &base, &factors, values) {
                        values.iter_mut().for_each(|value| *value *= factor);
                    }
                    change.float_type.encode(values, out);
                },
            );
        Ok(Weight::Plain(Tensor {
            dtype: change.float_type.into(),
            shape: entry.shape.clone(),
            data: data.into(),
        }))
    }

    fn factors(&self) -> Result<Factors, Error> {
        let part = |name: &str| {
            let tensor = self.adapter.tensors.read(name);
            tensor
                .as_ref()
                .and_then(floats)
                .ok_or_else(|| self.wrong(format!("the adapter has no floats `{name}`")))
        };
        Ok(Factors {
            a: part(&self.change.a)?,
            b: part(&self.change.b)?,
            lengths: self.change.lengths.as_deref().map(part).transpose()?,
        })
    }

    fn base<'b>(&self, weight: &'b Weight) -> Result<Base<'b>, Error> {
        Base::new(weight).ok_or_else(|| self.wrong("expected floats".to_owned()))
    }

    /// A row of `W + s B A`, and what brings it to the length that the adapter says. // (cols)
    fn row(&self, row: usize, base: &Base<'_>, factors: &Factors, values: &mut [f32]) -> Option<f32> {
        base.row(row, values);
        let shape = self.change.stored.rows_cols();
        self.change.add(row, shape, (&factors.a, &factors.b), values);
        let lengths = factors.lengths.as_ref()?;
        let squares: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
        Some(lengths[row] / squares.sqrt() as f32)
    }

    fn wrong(&self, what: String) -> Error {
        let what = format!("tensor `{}`: {what}", self.change.stored.name);
        Error::malformed(&self.adapter.folder, what)
    }
}

/// The tensors of a change, as they lie.
struct Factors {
    a: Vec<f32>,
    b: Vec<f32>,
    lengths: Option<Vec<f32>>,
}

impl Change {
    /// Adds a row of `s B A`.
    fn add(&self, row: usize, (rows, cols): (usize, usize), (a, b): (&[f32], &[f32]), values: &mut [f32]) {
        for place in 0..self.rank {
            let factor = self.scale
                * match self.transposed {
                    true => b[place * rows + row],
                    false => b[row * self.rank + place],
                };
            match self.transposed {
                true => {
                    let column = a[place..].iter().step_by(self.rank);
                    values
                        .iter_mut()
                        .zip(column)
                        .for_each(|(value, a)| *value += factor * a);
                }
                false => {
                    let line = &a[place * cols..][..cols];
                    values.iter_mut().zip(line).for_each(|(value, a)| *value += factor * a);
                }
            }
        }
    }
}

/// A weight as rows of f32.
enum Base<'a> {
    Plain(&'a Tensor, FloatType),
    Packed(&'a PackedMatrix),
}

impl Base<'_> {
    fn new(weight: &Weight) -> Option<Base<'_>> {
        match weight {
            Weight::Plain(tensor) => Some(Base::Plain(tensor, tensor.dtype.float_type()?)),
            Weight::Packed(matrix) => Some(Base::Packed(matrix)),
        }
    }

    fn row(&self, row: usize, values: &mut [f32]) {
        match self {
            Base::Plain(tensor, float_type) => {
                let bytes = values.len() * float_type.size_bytes();
                float_type.decode(&tensor.data[row * bytes..][..bytes], values);
            }
            Base::Packed(matrix) => {
                FloatType::F32.decode(&dequantize(&matrix.slice_rows(row..row + 1), FloatType::F32), values);
            }
        }
    }
}

fn floats(tensor: &Tensor) -> Option<Vec<f32>> {
    let float_type = tensor.dtype.float_type()?;
    let mut values = memory::filled("weights", tensor.data.len() / float_type.size_bytes(), 0.0);
    float_type.decode(&tensor.data, &mut values);
    Some(values)
}

/// An adapter whose tensors are being checked.
struct Opened<'a> {
    file: &'a Path,
    tensors: &'a Tensors,
    config: &'a Config,
}

impl Opened<'_> {
    /// What the parts of a module do, having checked their shapes.
    fn change(&self, module: &str, parts: Parts, entry: &Entry, plain: Option<FloatType>) -> Result<Change, Error> {
        let missing =
            |what: &str| Error::malformed(self.file, format!("the adapter lacks the tensor {what} of `{module}`"));
        let a = parts.a.ok_or_else(|| missing("A"))?;
        let b = parts.b.ok_or_else(|| missing("B"))?;
        if self.config.lengths && parts.lengths.is_none() {
            return Err(missing("of magnitudes"));
        }
        let (rank, scale) = self.config.rank_and_scale(module)?;
        let (rows, cols) = match entry.shape[..] {
            [rows, cols] => (rows, cols),
            _ => {
                return Err(self.wrong(
                    &a,
                    &format!("the weight `{}` is no matrix: {:?}", entry.name, entry.shape),
                ));
            }
        };
        let transposed = self.config.transposed;
        self.check(&a, if transposed { [cols, rank] } else { [rank, cols] }, &entry.name)?;
        self.check(&b, if transposed { [rank, rows] } else { [rows, rank] }, &entry.name)?;
        if let Some(lengths) = &parts.lengths {
            let stored = self.stored(lengths)?;
            if stored.shape.iter().product::<usize>() != rows || stored.dtype.float_type().is_none() {
                return Err(self.wrong(
                    lengths,
                    &format!("expected {rows} floats, found {} {:?}", stored.dtype, stored.shape),
                ));
            }
        }
        let float_type = match entry.layout {
            Layout::Plain(dtype) => dtype.float_type().ok_or_else(|| {
                self.wrong(
                    &a,
                    &format!(
                        "the weight `{}` is {dtype}, and adapters are added to floats",
                        entry.name
                    ),
                )
            })?,
            Layout::Packed { .. } => plain.unwrap_or(FloatType::BF16),
        };
        Ok(Change {
            stored: entry.clone(),
            a,
            b,
            lengths: parts.lengths,
            rank,
            scale,
            transposed,
            float_type,
        })
    }

    fn stored(&self, name: &str) -> Result<&Stored, Error> {
        let stored = self.tensors.get(name);
        stored.ok_or_else(|| Error::missing(self.file, format!("the adapter has no tensor `{name}`")))
    }

    fn check(&self, name: &str, expected: [usize; 2], weight: &str) -> Result<(), Error> {
        let stored = self.stored(name)?;
        if stored.dtype.float_type().is_none() {
            return Err(self.wrong(name, &format!("expected floats, found {}", stored.dtype)));
        }
        if stored.shape != expected {
            let what = format!(
                "expected shape {expected:?} for `{weight}` and the rank of the config, found {:?}",
                stored.shape
            );
            return Err(self.wrong(name, &what));
        }
        Ok(())
    }

    fn wrong(&self, name: &str, what: &str) -> Error {
        Error::malformed(self.file, format!("tensor `{name}`: {what}"))
    }
}
