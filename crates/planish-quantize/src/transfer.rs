//! Streams the entries of a checkpoint into a new folder, each as it is told: copied, cast, packed or moved.
//!
//! A few megabytes of rows at a time: memory does not grow with the model, nor with its largest tensor.

use std::path::PathBuf;

use planish_checkpoint::mlx::{Arranged, View};
use planish_checkpoint::{Checkpoint, Dialect, Dtype, Entry, Layout, Planned, Weight, Writer, WriterOptions};
use planish_format::{FloatType, Isa, PackedMatrix, PackedShape, Packing};
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

/// One tensor of the output, or three of a packed one.
pub(crate) struct Made {
    pub tensor: Arranged,
    /// What its pieces become.
    pub outcome: Outcome,
}

/// A whole conversion, decided.
pub(crate) struct Transfer<'a> {
    pub checkpoint: &'a Checkpoint,
    /// In the order of writing.
    pub made: Vec<Made>,
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
        Isa::chosen()?;
        let mut writer = Writer::create(&output.folder, self.planned()?, &self.writer_options(output))?;
        let bytes = |made: &Made| -> u64 {
            made.tensor
                .pieces
                .iter()
                .map(|piece| self.entry(piece.entry).stored_bytes)
                .sum()
        };
        let total_bytes = self.made.iter().map(bytes).sum();
        let mut done_bytes = 0;
        for made in &self.made {
            for piece in &made.tensor.pieces {
                let entry = self.entry(piece.entry);
                let mut report = |part: f64| {
                    let part_bytes = (entry.stored_bytes as f64 * part) as u64;
                    on_progress(Progress {
                        tensor: &entry.name,
                        done_bytes: done_bytes + part_bytes,
                        total_bytes,
                    });
                };
                let mut stream = Stream {
                    transfer: self,
                    name: &made.tensor.name,
                    entry,
                    view: &piece.view,
                    writer: &mut writer,
                };
                stream.write(made.outcome, &mut report)?;
                report(1.0);
                done_bytes += entry.stored_bytes;
            }
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

    fn entry(&self, index: usize) -> &Entry {
        &self.checkpoint.entries()[index]
    }

    fn planned(&self) -> Result<Vec<Planned>, Error> {
        let mut planned = Vec::new();
        for made in &self.made {
            for piece in &made.tensor.pieces {
                self.check_piece(made, self.entry(piece.entry), &piece.view)?;
            }
            planned.extend(self.planned_parts(made)?);
        }
        Ok(planned)
    }

    /// That a piece can become what is planned, as far as its entry tells.
    fn check_piece(&self, made: &Made, entry: &Entry, view: &View) -> Result<(), Error> {
        let first = made.tensor.pieces.first().map(|piece| &self.entry(piece.entry).layout);
        match (made.outcome, &entry.layout) {
            (Outcome::Float(_) | Outcome::Pack(..), _) => {}
            (_, layout) if first != Some(layout) => {
                let what = format!("is stored otherwise than the other parts of `{}`", made.tensor.name);
                return Err(wrong(entry, what));
            }
            (Outcome::Copy, Layout::Plain(_)) => {}
            (Outcome::Move, Layout::Packed { .. }) if view.is_rows() => {}
            (Outcome::Move, Layout::Packed { .. }) => {
                return Err(Error::Inexpressible(format!(
                    "{}: the target holds it in another order, which packed words cannot be brought into: \
                     `planish dequantize` it, then `planish quantize` it anew",
                    entry.name
                )));
            }
            (Outcome::Copy | Outcome::Move, _) => {
                // The reader names the mode that it does not know.
                self.checkpoint.read(entry)?;
            }
        }
        Ok(())
    }

    fn planned_parts(&self, made: &Made) -> Result<Vec<Planned>, Error> {
        let tensor = &made.tensor;
        let Some(entry) = tensor.pieces.first().map(|piece| self.entry(piece.entry)) else {
            return Ok(Vec::new());
        };
        let plain = |dtype: Dtype| {
            vec![Planned {
                name: tensor.name.clone(),
                dtype,
                shape: tensor.shape.clone(),
            }]
        };
        let (packing, scale_type) = match (made.outcome, &entry.layout) {
            (Outcome::Float(float_type), _) => return Ok(plain(float_type.into())),
            (Outcome::Copy, Layout::Plain(dtype)) => return Ok(plain(*dtype)),
            (Outcome::Pack(packing, scale_type), _) => (packing, scale_type),
            (Outcome::Move, Layout::Packed { packing, scale_type }) => (*packing, *scale_type),
            (Outcome::Copy | Outcome::Move, _) => return Ok(Vec::new()),
        };
        let (cols, leading) = tensor
            .shape
            .split_last()
            .map_or((1, &[][..]), |(cols, rest)| (*cols, rest));
        let shape = PackedShape::new(leading.iter().product(), cols, packing, scale_type)
            .map_err(|error| wrong(entry, error.to_string()))?;
        let with_last = |last: usize| [leading, &[last]].concat();
        let [codes, scales, biases] = part_names(&tensor.name, &self.dialect);
        let part = |name: String, dtype: Dtype, last: usize| Planned {
            name,
            dtype,
            shape: with_last(last),
        };
        Ok(vec![
            part(codes, Dtype::U32, shape.code_row_bytes() / 4),
            part(scales, scale_type.into(), shape.groups()),
            part(biases, scale_type.into(), shape.groups()),
        ])
    }
}

fn wrong(entry: &Entry, what: String) -> Error {
    Error::Weight {
        tensor: entry.name.clone(),
        what,
    }
}

/// The tensors of a packed weight in a dialect.
fn part_names(name: &str, dialect: &Dialect) -> [String; 3] {
    let module = name.strip_suffix(".weight").unwrap_or(name);
    let biases = dialect.biases_suffix().unwrap_or_default();
    [name.to_owned(), format!("{module}.scales"), format!("{module}{biases}")]
}

/// One piece on its way.
struct Stream<'a> {
    transfer: &'a Transfer<'a>,
    /// The tensor of the output.
    name: &'a str,
    entry: &'a Entry,
    view: &'a View,
    writer: &'a mut Writer,
}

impl Stream<'_> {
    /// `report` takes the part of the entry that is done, 0 to 1.
    fn write(&mut self, outcome: Outcome, report: &mut dyn FnMut(f64)) -> Result<(), Error> {
        let weight = self.transfer.checkpoint.read(self.entry)?;
        match (outcome, &weight) {
            (Outcome::Copy, Weight::Plain(tensor)) if self.is_copied(tensor.dtype) => {
                let chunk_bytes = CHUNK_WEIGHTS * tensor.dtype.size_bytes();
                for (index, chunk) in tensor.data.chunks(chunk_bytes).enumerate() {
                    self.append(self.name, chunk)?;
                    report((index * chunk_bytes) as f64 / tensor.data.len() as f64);
                }
            }
            (Outcome::Copy, Weight::Plain(_)) => self.floats(&weight, None, report)?,
            (Outcome::Float(float_type), _) => self.floats(&weight, Some(float_type), report)?,
            (Outcome::Pack(packing, scale_type), _) => self.pack(&weight, packing, scale_type, report)?,
            (Outcome::Move, Weight::Packed(matrix)) => self.moved(matrix)?,
            (Outcome::Copy | Outcome::Move, _) => {
                let what = "is stored otherwise than the checkpoint's header says".to_owned();
                return Err(wrong(self.entry, what));
            }
        }
        Ok(())
    }

    /// Whether the bytes of a plain tensor go as they are, unread.
    fn is_copied(&self, dtype: Dtype) -> bool {
        let whole = self.view.is_whole(self.entry.rows_cols().0);
        dtype.float_type().is_none() || (whole && !self.must_be_finite())
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
        let floats = Floats::new(&self.entry.name, weight, float_type)?.viewed(self.view);
        for rows in chunks(floats.rows, floats.cols) {
            if self.must_be_finite() {
                floats.check_finite(rows.clone())?;
            }
            report(rows.start as f64 / floats.rows as f64);
            self.append(self.name, &floats.rows(rows))?;
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
        let floats = Floats::new(&self.entry.name, weight, Some(scale_type))?.viewed(self.view);
        for rows in chunks(floats.rows, floats.cols) {
            report(rows.start as f64 / floats.rows as f64);
            let packed = floats.pack(rows, packing, recipe)?;
            self.parts(&packed)?;
        }
        Ok(())
    }

    /// The rows of the view, block after block.
    fn moved(&mut self, matrix: &PackedMatrix) -> Result<(), Error> {
        if self.view.is_whole(matrix.rows) {
            return self.parts(matrix);
        }
        for start in (0..matrix.rows).step_by(self.view.block_rows.max(1)) {
            let rows = start + self.view.rows.start..start + self.view.rows.end;
            self.parts(&matrix.slice_rows(rows))?;
        }
        Ok(())
    }

    fn parts(&mut self, matrix: &PackedMatrix) -> Result<(), Error> {
        let [codes, scales, biases] = part_names(self.name, &self.transfer.dialect);
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
