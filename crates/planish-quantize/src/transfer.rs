//! Streams the entries of a checkpoint into a new folder, each as it is told: copied, cast, packed or moved.
//!
//! A few megabytes of rows at a time: memory does not grow with the model, nor with its largest tensor.

use std::path::PathBuf;

use planish_checkpoint::{Checkpoint, Dialect, Dtype, Entry, Layout, Planned, Weight, Writer, WriterOptions};
use planish_format::{FloatType, PackedMatrix, PackedShape, Packing};
use serde_json::{Map, Value};

use crate::pack::Floats;
use crate::{Error, Recipe};

/// Weights that are read, computed and written at once.
const CHUNK_WEIGHTS: usize = 4 << 20;

/// Where a new checkpoint goes.
#[derive(Clone, Debug)]
pub struct Output {
    /// The folder, which appears only when whole.
    pub folder: PathBuf,
    /// Replace an existing model folder.
    pub force: bool,
    /// The Hub id of the source, for the model card.
    pub base_model: Option<String>,
}

/// How far a conversion is.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The tensor being converted.
    pub tensor: &'a str,
    /// Bytes of the source that are done.
    pub done_bytes: u64,
    /// Bytes of all tensors of the source.
    pub total_bytes: u64,
}

/// Called now and then during a conversion.
pub type OnProgress<'a> = dyn FnMut(Progress) + 'a;

/// What an entry becomes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Outcome {
    /// The bytes of a plain tensor as they are.
    Copy,
    /// Plain floats of a type.
    Float(FloatType),
    /// Packed, with scales of a type.
    Pack(Packing, FloatType),
    /// The codes, scales and biases of a packed weight as they are.
    Move,
}

/// A whole conversion, decided.
pub(crate) struct Transfer<'a> {
    pub checkpoint: &'a Checkpoint,
    /// One for each entry of the checkpoint, in its order.
    pub outcomes: Vec<Outcome>,
    /// The dialect of the output.
    pub dialect: Dialect,
    pub config: Map<String, Value>,
    pub card: String,
    /// For the rule and types of what is packed; `None` where nothing is.
    pub recipe: Option<&'a Recipe>,
    /// Refuse NaN and infinity in weights that are not packed, too.
    pub check_finite: bool,
}

impl Transfer<'_> {
    /// Writes the output.
    pub fn run(&self, output: &Output, on_progress: &mut OnProgress) -> Result<(), Error> {
        let mut writer = Writer::create(&output.folder, self.planned()?, &self.writer_options(output))?;
        let total_bytes = self.checkpoint.entries().iter().map(|entry| entry.stored_bytes).sum();
        let mut done_bytes = 0;
        for (entry, outcome) in self.checkpoint.entries().iter().zip(&self.outcomes) {
            let mut stream = Stream {
                transfer: self,
                entry,
                writer: &mut writer,
            };
            let mut report = |part: f64| {
                let part_bytes = (entry.stored_bytes as f64 * part) as u64;
                on_progress(Progress {
                    tensor: &entry.name,
                    done_bytes: done_bytes + part_bytes,
                    total_bytes,
                });
            };
            stream.write(*outcome, &mut report)?;
            report(1.0);
            done_bytes += entry.stored_bytes;
        }
        for name in self.checkpoint.files() {
            if let Some(data) = self.checkpoint.file(name)? {
                writer.add_file(name, &data)?;
            }
        }
        let config = format!("{:#}\n", Value::Object(self.config.clone()));
        writer.add_file("config.json", config.as_bytes())?;
        writer.add_file("README.md", self.card.as_bytes())?;
        writer.finish()?;
        Ok(())
    }

    /// Bytes of all tensors of the output.
    pub fn output_bytes(&self) -> Result<u64, Error> {
        let size = |tensor: &Planned| (tensor.shape.iter().product::<usize>() * tensor.dtype.size_bytes()) as u64;
        Ok(self.planned()?.iter().map(size).sum())
    }

    fn writer_options(&self, output: &Output) -> WriterOptions {
        WriterOptions {
            force: output.force,
            format: self.dialect.safetensors_format(),
            ..WriterOptions::default()
        }
    }

    fn planned(&self) -> Result<Vec<Planned>, Error> {
        let mut planned = Vec::new();
        for (entry, outcome) in self.checkpoint.entries().iter().zip(&self.outcomes) {
            let name = entry.name.clone();
            let shape = entry.shape.clone();
            match (*outcome, &entry.layout) {
                (Outcome::Float(float_type), _) => planned.push(Planned {
                    name,
                    dtype: float_type.into(),
                    shape,
                }),
                (Outcome::Copy, Layout::Plain(dtype)) => {
                    planned.push(Planned {
                        name,
                        dtype: *dtype,
                        shape,
                    });
                }
                (Outcome::Pack(packing, scale_type), _) => {
                    planned.extend(self.planned_parts(entry, packing, scale_type)?);
                }
                (Outcome::Move, Layout::Packed { packing, scale_type }) => {
                    planned.extend(self.planned_parts(entry, *packing, *scale_type)?);
                }
                (Outcome::Copy | Outcome::Move, _) => {
                    // The reader names the mode that it does not know.
                    self.checkpoint.read(entry)?;
                }
            }
        }
        Ok(planned)
    }

    fn planned_parts(&self, entry: &Entry, packing: Packing, scale_type: FloatType) -> Result<[Planned; 3], Error> {
        let (rows, cols) = entry.rows_cols();
        let wrong = |what: String| Error::Weight {
            tensor: entry.name.clone(),
            what,
        };
        let shape = PackedShape::new(rows, cols, packing, scale_type).map_err(|error| wrong(error.to_string()))?;
        let with_last = |last: usize| {
            let mut sizes = entry.shape.clone();
            if let Some(cols) = sizes.last_mut() {
                *cols = last;
            }
            sizes
        };
        let [codes, scales, biases] = part_names(entry, &self.dialect);
        let dtype: Dtype = scale_type.into();
        Ok([
            Planned {
                name: codes,
                dtype: Dtype::U32,
                shape: with_last(shape.code_row_bytes() / 4),
            },
            Planned {
                name: scales,
                dtype,
                shape: with_last(shape.groups()),
            },
            Planned {
                name: biases,
                dtype,
                shape: with_last(shape.groups()),
            },
        ])
    }
}

/// The tensors of a packed weight in a dialect.
fn part_names(entry: &Entry, dialect: &Dialect) -> [String; 3] {
    let module = entry.module().unwrap_or(&entry.name);
    let biases = dialect.biases_suffix().unwrap_or_default();
    [
        entry.name.clone(),
        format!("{module}.scales"),
        format!("{module}{biases}"),
    ]
}

/// One entry on its way.
struct Stream<'a> {
    transfer: &'a Transfer<'a>,
    entry: &'a Entry,
    writer: &'a mut Writer,
}

impl Stream<'_> {
    /// `report` takes the part of the entry that is done, 0 to 1.
    fn write(&mut self, outcome: Outcome, report: &mut dyn FnMut(f64)) -> Result<(), Error> {
        let weight = self.transfer.checkpoint.read(self.entry)?;
        match (outcome, &weight) {
            (Outcome::Copy, Weight::Plain(tensor)) if !self.must_be_finite() || tensor.dtype.float_type().is_none() => {
                let chunk_bytes = CHUNK_WEIGHTS * tensor.dtype.size_bytes();
                for (index, chunk) in tensor.data.chunks(chunk_bytes).enumerate() {
                    self.append(&self.entry.name.clone(), chunk)?;
                    report((index * chunk_bytes) as f64 / tensor.data.len() as f64);
                }
            }
            (Outcome::Copy, Weight::Plain(_)) => self.floats(&weight, None, report)?,
            (Outcome::Float(float_type), _) => self.floats(&weight, Some(float_type), report)?,
            (Outcome::Pack(packing, scale_type), _) => self.pack(&weight, packing, scale_type, report)?,
            (Outcome::Move, Weight::Packed(matrix)) => self.parts(matrix)?,
            (Outcome::Copy | Outcome::Move, _) => {
                let what = "is stored otherwise than the checkpoint's header says".to_owned();
                return Err(Error::Weight {
                    tensor: self.entry.name.clone(),
                    what,
                });
            }
        }
        Ok(())
    }

    /// Tables and masks may hold infinities by design; weights and biases may not.
    fn must_be_finite(&self) -> bool {
        let name = &self.entry.name;
        self.transfer.check_finite && (name.ends_with(".weight") || name.ends_with(".bias"))
    }

    fn floats(
        &mut self,
        weight: &Weight,
        float_type: Option<FloatType>,
        report: &mut dyn FnMut(f64),
    ) -> Result<(), Error> {
        let name = self.entry.name.clone();
        let floats = Floats::new(&name, weight, float_type)?;
        for rows in chunks(floats.rows, floats.cols) {
            if self.must_be_finite() {
                floats.check_finite(rows.clone())?;
            }
            report(rows.start as f64 / floats.rows as f64);
            self.append(&name, &floats.rows(rows))?;
        }
        Ok(())
    }

    fn pack(
        &mut self,
        weight: &Weight,
        packing: Packing,
        scale_type: FloatType,
        report: &mut dyn FnMut(f64),
    ) -> Result<(), Error> {
        let Some(recipe) = self.transfer.recipe else {
            unreachable!("packing without a recipe")
        };
        let name = self.entry.name.clone();
        let floats = Floats::new(&name, weight, Some(scale_type))?;
        for rows in chunks(floats.rows, floats.cols) {
            report(rows.start as f64 / floats.rows as f64);
            let packed = floats.pack(rows, packing, recipe)?;
            self.parts(&packed)?;
        }
        Ok(())
    }

    fn parts(&mut self, matrix: &PackedMatrix) -> Result<(), Error> {
        let [codes, scales, biases] = part_names(self.entry, &self.transfer.dialect);
        for (name, data) in [
            (codes, &matrix.codes),
            (scales, &matrix.scales),
            (biases, &matrix.biases),
        ] {
            self.append(&name, data)?;
        }
        Ok(())
    }

    fn append(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        self.writer.append(name, data)?;
        // Mapped pages count as memory of the process until they are given back.
        self.transfer.checkpoint.release(self.entry);
        Ok(())
    }
}

/// Ranges of rows of about [`CHUNK_WEIGHTS`] weights.
fn chunks(rows: usize, cols: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
    let step = (CHUNK_WEIGHTS / cols.max(1)).max(1);
    (0..rows)
        .step_by(step)
        .map(move |start| start..(start + step).min(rows))
}
