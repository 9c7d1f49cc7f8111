//! Streams the entries of a checkpoint into a new folder, each as it is told: copied, cast, packed or moved.
//!
//! A few megabytes of rows at a time: memory does not grow with the model, nor with its largest tensor.

mod floats;
mod moved;

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use planish_checkpoint::{
    Checkpoint, Dialect, Dtype, Entry, Layout, Planned, Run, View, Weight, Writer, WriterOptions, rows_cols,
};
use planish_format::memory::or_out_of_memory;
use planish_format::{FloatMode, FloatType, Isa, PackedMatrix, PackedShape, Packing};
use serde_json::{Map, Value};

use crate::card::Card;
use crate::layers::{Classifier, Role};
use crate::pack::Floats;
use crate::plan::{Fate, OutputTensor};
use crate::report::Report;
use crate::{Error, Method, Recipe, Remedy};

/// Weights that are read, computed and written at once.
pub(crate) const CHUNK_WEIGHTS: usize = 4 << 20;

/// The file that says the bits of each layer, where they were chosen one by one.
pub(crate) const ALLOCATION: &str = "allocation.json";

/// Where a new checkpoint goes.
#[derive(Clone, Debug)]
pub struct Output {
    /// The folder, which appears only when whole.
    pub folder: PathBuf,
    /// Replace an existing model folder.
    pub force: bool,
    /// The Hub id of the source, for the model card.
    pub base_model: Option<String>,
    /// Also copy what is a link to a file that lies neither in the source's folder nor in the cache of the Hub.
    pub copy_linked: bool,
    /// Write the largest value that a float type has in place of a larger one, where one is converted to a narrower type.
    pub clamp: bool,
    /// Go on with what a run with the same options left unfinished, if there is something; what this one leaves stays, too.
    pub resume: bool,
    /// Set from elsewhere, it ends the conversion with [`Error::Stopped`].
    pub stop: Arc<AtomicBool>,
}

impl Output {
    /// A new folder; none is replaced.
    pub fn new(folder: impl Into<PathBuf>) -> Output {
        Output {
            folder: folder.into(),
            force: false,
            base_model: None,
            copy_linked: false,
            clamp: false,
            resume: false,
            stop: Arc::default(),
        }
    }

    /// Whether it is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn check_stop(&self) -> Result<(), Error> {
        match self.is_stopped() {
            true => Err(Error::Stopped {
                folder: self.folder.clone(),
            }),
            false => Ok(()),
        }
    }

    /// The last part of the folder's path.
    pub(crate) fn folder_name(&self) -> String {
        let name = self.folder.file_name().unwrap_or(self.folder.as_os_str());
        name.to_string_lossy().into_owned()
    }
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

/// A whole conversion, decided.
pub(crate) struct Transfer<'a> {
    pub checkpoint: &'a Checkpoint,
    /// In the order of writing.
    pub tensors: Vec<OutputTensor>,
    /// The dialect of the output.
    pub dialect: Dialect,
    pub config: Map<String, Value>,
    /// For the rule and types of what is packed; `None` where nothing is.
    pub recipe: Option<&'a Recipe>,
    /// Refuse NaN and infinity in weights that are not packed, too.
    pub check_finite: bool,
}

impl Transfer<'_> {
    /// What will be done, as far as the plan tells: the layers that stay plain with the reason, and what else is to be known.
    ///
    /// # Errors
    /// What cannot become what is planned; an output that holds the source.
    pub fn report(
        &self,
        plain: Vec<(String, String)>,
        mut notes: Vec<String>,
        output: &Output,
    ) -> Result<Report, Error> {
        if self.checkpoint.is_in(&output.folder) {
            return Err(Error::OutputIsSource {
                folder: output.folder.clone(),
            });
        }
        let linked = self.checkpoint.linked_files();
        if !linked.is_empty() && !output.copy_linked {
            let names = linked.join(", ");
            notes.push(format!("not copied, since they are links to files elsewhere: {names}"));
        }
        if !self.checkpoint.large_files().is_empty() {
            let names = self.checkpoint.large_files().join(", ");
            notes.push(format!("not copied, since they have more than 512 MiB: {names}"));
        }
        notes.extend(self.left_out());
        let size = |tensor: &Planned| {
            let elements = tensor.shape.iter().product::<usize>();
            tensor.dtype.bytes_of(elements).unwrap_or(0) as u64
        };
        let packed = |tensor: &&OutputTensor| tensor.fate.is_packed();
        let entries = self.checkpoint.entries();
        Ok(Report {
            packed: self.tensors.iter().filter(packed).count(),
            plain,
            unseen: Vec::new(),
            notes,
            source_bytes: entries.iter().map(|entry| entry.stored_bytes).sum(),
            output_bytes: self.planned()?.iter().map(size).sum(),
            weights: entries.iter().map(Entry::element_count).sum(),
        })
    }

    /// Weights of the source that the target has no place for, but for a head that is a copy of the embedding.
    fn left_out(&self) -> Option<String> {
        let entries = self.checkpoint.entries();
        let parts = self.tensors.iter().flat_map(|tensor| &tensor.parts);
        let written: HashSet<usize> = parts.map(|part| part.entry).collect();
        let classifier = Classifier::new(self.checkpoint.config(), entries);
        let is_left_out = |(index, entry): &(usize, &Entry)| {
            !written.contains(index) && entry.name.ends_with(".weight") && classifier.role(entry) != Role::Head
        };
        let names = entries.iter().enumerate().filter(is_left_out);
        let names: Vec<&str> = names.map(|(_, entry)| entry.name.as_str()).collect();
        let (first, last) = (names.first()?, names.last()?);
        Some(match names.len() {
            1 => format!("not written, since the target's loader drops it: {first}"),
            count => format!("not written, since the target's loader drops them: {count} tensors, {first} to {last}"),
        })
    }

    /// Writes the output.
    pub fn run(&self, card: &Card, output: &Output, on_progress: &mut OnProgress) -> Result<(), Error> {
        let result =
            or_out_of_memory(|| self.write(card, output, on_progress)).unwrap_or_else(|error| Err(error.into()));
        if result.is_err() {
            // A file that was cut is the cause, whatever it led to.
            self.checkpoint.check_unchanged()?;
        }
        result
    }

    fn write(&self, card: &Card, output: &Output, on_progress: &mut OnProgress) -> Result<(), Error> {
        Isa::chosen()?;
        let card = card.render(self.checkpoint, output)?;
        let mut writer = Writer::create(&output.folder, self.planned()?, &self.writer_options(output)?)?;
        let parts = self.tensors.iter().flat_map(|tensor| &tensor.parts);
        let total_bytes = parts.map(|part| self.entry(part.entry).stored_bytes).sum();
        let mut done_bytes = 0;
        for tensor in &self.tensors {
            let planned = self.planned_parts(tensor)?;
            let needed = writer.needs(planned.iter().map(|tensor| tensor.name.as_str()));
            for part in &tensor.parts {
                let entry = self.entry(part.entry);
                let mut report = |done: f64| {
                    let part_bytes = (entry.stored_bytes as f64 * done) as u64;
                    on_progress(Progress {
                        tensor: &entry.name,
                        done_bytes: done_bytes + part_bytes,
                        total_bytes,
                    });
                };
                let mut stream = Stream {
                    transfer: self,
                    name: &tensor.name,
                    entry,
                    view: &part.view,
                    output,
                    writer: &mut writer,
                };
                if needed {
                    stream.write(tensor.fate, &mut report)?;
                }
                report(1.0);
                done_bytes += entry.stored_bytes;
            }
        }
        let linked = match output.copy_linked {
            true => self.checkpoint.linked_files(),
            false => &[],
        };
        let allocation = self.recipe.and_then(|recipe| recipe.allocation.as_ref());
        let others = self.checkpoint.files().iter().chain(linked);
        for name in others.filter(|name| allocation.is_none() || *name != ALLOCATION) {
            if let Some(mut data) = self.checkpoint.read_through(name)? {
                output.check_stop()?;
                writer.add_file_from(name, &mut data)?;
            }
        }
        if let Some(allocation) = allocation {
            writer.add_file(ALLOCATION, allocation.to_json().as_bytes())?;
        }
        let config = format!("{:#}\n", Value::Object(self.config.clone()));
        writer.add_file("config.json", config.as_bytes())?;
        writer.add_file("README.md", card.as_bytes())?;
        output.check_stop()?;
        self.checkpoint.check_unchanged()?;
        writer.finish()?;
        Ok(())
    }

    fn writer_options(&self, output: &Output) -> Result<WriterOptions, Error> {
        Ok(WriterOptions {
            force: output.force,
            format: self.dialect.safetensors_format(),
            run: self.identity(output)?,
            resume: output.resume,
            ..WriterOptions::default()
        })
    }

    /// Everything that the written bytes depend on: a run that differs in none of it may go on with what this one leaves.
    fn identity(&self, output: &Output) -> Result<Run, Error> {
        let mut identity = self.checkpoint.identity()?;
        let mut say = |what: &str, value: String| identity.push((what.to_owned(), value));
        say("the version of planish", env!("CARGO_PKG_VERSION").to_owned());
        say("clamping", output.clamp.to_string());
        if let Some(recipe) = self.recipe {
            recipe.identify(&mut say);
        }
        Ok(identity)
    }

    fn entry(&self, index: usize) -> &Entry {
        &self.checkpoint.entries()[index]
    }

    fn planned(&self) -> Result<Vec<Planned>, Error> {
        let mut planned = Vec::new();
        for tensor in &self.tensors {
            for part in &tensor.parts {
                self.check_part(tensor, self.entry(part.entry), &part.view)?;
            }
            planned.extend(self.planned_parts(tensor)?);
        }
        Ok(planned)
    }

    /// That a part can become what is planned, as far as its entry tells.
    fn check_part(&self, tensor: &OutputTensor, entry: &Entry, view: &View) -> Result<(), Error> {
        let first = tensor.parts.first().map(|part| &self.entry(part.entry).layout);
        match (tensor.fate, &entry.layout) {
            (Fate::Cast(_) | Fate::Quantize(..) | Fate::Floats(..) | Fate::Blocks, _) => {}
            (_, layout) if first != Some(layout) => {
                let what = format!("is stored otherwise than the other parts of `{}`", tensor.name);
                return Err(wrong(entry, what));
            }
            (Fate::Copy, Layout::Plain(_)) => {}
            (Fate::Move | Fate::Widen(_), Layout::Packed { .. }) if view.is_rows() => {}
            (Fate::Move | Fate::Widen(_), Layout::Packed { .. }) => {
                let what = format!(
                    "{}: the target holds it in another order, which packed words cannot be brought into",
                    entry.name
                );
                return Err(Error::inexpressible(what, Remedy::QuantizeAnew));
            }
            (Fate::Copy | Fate::Move | Fate::Widen(_), _) => {
                // The reader names the mode that it does not know.
                self.checkpoint.read(entry)?;
            }
        }
        Ok(())
    }

    fn planned_parts(&self, tensor: &OutputTensor) -> Result<Vec<Planned>, Error> {
        let Some(entry) = tensor.parts.first().map(|part| self.entry(part.entry)) else {
            return Ok(Vec::new());
        };
        let plain = |dtype: Dtype| {
            vec![Planned {
                name: tensor.name.clone(),
                dtype,
                shape: tensor.shape.clone(),
            }]
        };
        let (packing, scale_type) = match (tensor.fate, &entry.layout) {
            (Fate::Cast(float_type), _) => return Ok(plain(float_type.into())),
            (Fate::Copy, Layout::Plain(dtype)) => return Ok(plain(*dtype)),
            (Fate::Quantize(packing, scale_type), _) => (packing, scale_type),
            (Fate::Floats(mode, _), _) => return Ok(self.planned_floats(tensor, mode)),
            (Fate::Blocks, _) => return Ok(self.planned_floats(tensor, FloatMode::Mxfp4)),
            (Fate::Move, Layout::Packed { packing, scale_type }) => (*packing, *scale_type),
            (Fate::Widen(packing), Layout::Packed { scale_type, .. }) => (packing, *scale_type),
            (Fate::Copy | Fate::Move | Fate::Widen(_), _) => return Ok(Vec::new()),
        };
        let (rows, cols) = rows_cols(&tensor.shape);
        let shape =
            PackedShape::new(rows, cols, packing, scale_type).map_err(|error| wrong(entry, error.to_string()))?;
        let leading = tensor.shape.split_last().map_or(&[][..], |(_, leading)| leading);
        let [codes, scales, biases] = part_names(&tensor.name, &self.dialect);
        let part = |name: String, dtype: Dtype, last: usize| Planned {
            name,
            dtype,
            shape: [leading, &[last]].concat(),
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

/// One part of a tensor on its way.
struct Stream<'a> {
    transfer: &'a Transfer<'a>,
    /// The tensor of the output.
    name: &'a str,
    entry: &'a Entry,
    view: &'a View,
    output: &'a Output,
    writer: &'a mut Writer,
}

impl Stream<'_> {
    /// `report` takes the part of the entry that is done, 0 to 1.
    fn write(&mut self, fate: Fate, report: &mut dyn FnMut(f64)) -> Result<(), Error> {
        if fate == Fate::Blocks {
            return self.blocks();
        }
        let weight = self.transfer.checkpoint.read(self.entry)?;
        match (fate, &weight) {
            (Fate::Copy, Weight::Plain(tensor)) if self.is_copied(tensor.dtype) => {
                let chunk_bytes = CHUNK_WEIGHTS * tensor.dtype.size_bytes();
                for (index, chunk) in tensor.data.chunks(chunk_bytes).enumerate() {
                    self.append(self.name, chunk)?;
                    report((index * chunk_bytes) as f64 / tensor.data.len() as f64);
                }
            }
            (Fate::Copy, Weight::Plain(_)) => self.floats(&weight, None, report)?,
            (Fate::Cast(float_type), _) => self.floats(&weight, Some(float_type), report)?,
            (Fate::Quantize(packing, scale_type), _) => self.pack(&weight, packing, scale_type, report)?,
            (Fate::Floats(mode, float_type), _) => self.pack_floats(&weight, mode, float_type, report)?,
            (Fate::Move, Weight::Packed(matrix)) => self.moved(matrix)?,
            (Fate::Widen(packing), Weight::Packed(matrix)) => self.widened(matrix, packing)?,
            (Fate::Copy | Fate::Move | Fate::Widen(_) | Fate::Blocks, _) => {
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
        let floats = floats.clamped(self.output.clamp);
        for rows in floats.chunks(CHUNK_WEIGHTS) {
            if self.must_be_finite() {
                floats.check_finite(rows.clone())?;
            }
            report(rows.start as f64 / floats.rows as f64);
            self.append(self.name, &floats.narrowed(rows)?)?;
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
        if let Method::Chosen(codes) = &recipe.method
            && self.view.is_rows()
            && let Some(matrix) = codes.of(&self.entry.name)?
            && (matrix.rows, matrix.cols) == self.entry.rows_cols()
            && (matrix.packing, matrix.scale_type) == (packing, scale_type)
        {
            return self.moved(&matrix);
        }
        let floats = Floats::new(&self.entry.name, weight, Some(scale_type))?.viewed(self.view);
        let floats = floats.clamped(self.output.clamp);
        // Mapped pages count as memory of the process until they are given back.
        let importance = floats.importance(&recipe.method, || self.transfer.checkpoint.release(self.entry));
        for (rows, columns) in floats.important_chunks(CHUNK_WEIGHTS, &importance) {
            report(rows.start as f64 / floats.rows as f64);
            let packed = floats.pack(rows, packing, recipe, columns)?;
            self.parts(&packed)?;
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
        self.output.check_stop()?;
        self.writer.append(name, data)?;
        // Mapped pages count as memory of the process until they are given back.
        self.transfer.checkpoint.release(self.entry);
        Ok(())
    }
}
