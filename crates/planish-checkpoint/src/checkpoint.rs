//! An opened checkpoint: configuration, dialect, named weights and other files, whatever the storage.

use std::collections::HashMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use planish_format::FloatType;
use planish_format::memory::or_out_of_memory;
use serde_json::{Map, Value};

use crate::adapter::{Adapter, Beside};
use crate::assemble::{Part, PartsByName, assemble};
use crate::folder::map::{MappedFile, Mapping};
use crate::source::Source;
use crate::{Checksum, Dialect, Entry, Error, Layout, Run, Tensor, Weight, dtype, folder, gguf, memory, mlx};

/// A Hugging Face folder or a GGUF file, opened for reading.
///
/// Opening reads headers only. Weights are mapped: the files must not be changed while the checkpoint, or anything read from
/// it, is alive.
pub struct Checkpoint {
    source: Source,
    entries: Vec<Entry>,
    by_name: HashMap<String, usize>,
    /// The parts of the source's entries that those are made of which mlx-lm stores under other names or in another order.
    parts: PartsByName,
    /// Packed entries of the source that had to be unpacked to be parts of another, by their names.
    unpacked: HashMap<String, usize>,
    /// What is merged into weights as they are read.
    adapter: Option<Adapter>,
}

/// The files that weights are read from.
#[derive(Clone, Default)]
pub struct FilesRead(Vec<Arc<Mapping>>);

impl FilesRead {
    /// That no part of a file was gone when it was read; noticed where [`crate::watch_mappings`] was called. Costs next to nothing.
    ///
    /// # Errors
    /// [`Error::Changed`] names the file.
    pub fn check(&self) -> Result<(), Error> {
        self.0.iter().try_for_each(|mapping| mapping.check_whole())
    }
}

impl Checkpoint {
    /// Opens a folder (`model.safetensors`, or shards with an index) or a `.gguf` file.
    ///
    /// # Errors
    /// What is missing, malformed, contradictory or of a kind that is not read; see [`Error`].
    pub fn open(path: &Path) -> Result<Checkpoint, Error> {
        let kind = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(Error::missing(path, "expected a model folder or a .gguf file"));
            }
            Err(error) => return Err(Error::io(path)(error)),
        };
        if kind.is_dir() {
            folder::open(path).map(Checkpoint::translated)
        } else if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        {
            let (source, translated) = gguf::open(path, MappedFile::open(path)?)?;
            Ok(Checkpoint::new(source, translated))
        } else {
            let what = "expected a model folder or a .gguf file, found another file (for safetensors pass the folder)";
            Err(Error::unsupported(path, what))
        }
    }

    /// Opens a folder whose files lie in memory: (name, content), `config.json` and weights among them, in one file or shards; or a
    /// GGUF file, if one `.gguf` is all there is. `name` stands for the folder in messages. Data should lie at multiples of 8 bytes;
    /// packed parts that do not are copied.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_memory(name: &str, files: Vec<(String, Bytes)>) -> Result<Checkpoint, Error> {
        match &files[..] {
            [(file, data)] if file.ends_with(".gguf") => {
                let file = Path::new(name).join(file);
                let (source, translated) = gguf::open(&file, MappedFile::of_bytes(data.clone()))?;
                Ok(Checkpoint::new(source, translated))
            }
            _ => memory::open(name, files).map(Checkpoint::translated),
        }
    }

    /// Under Hugging Face names, where a source has those of mlx-lm.
    fn translated(source: Source) -> Checkpoint {
        let translated = match source.dialect {
            Dialect::Metal { .. } | Dialect::Method(_) => None,
            Dialect::Plain | Dialect::Mlx { .. } => mlx::translate(&source.config, &source.entries),
        };
        Checkpoint::new(source, translated)
    }

    fn new(source: Source, translated: Option<(Vec<Entry>, PartsByName)>) -> Checkpoint {
        let (entries, parts) = translated.unwrap_or_else(|| (source.entries.clone(), PartsByName::new()));
        let names = entries.iter().enumerate();
        let plain = entries.iter().filter(|entry| matches!(entry.layout, Layout::Plain(_)));
        let unpacked = plain
            .filter_map(|entry| parts.get(&entry.name))
            .flatten()
            .map(|part| (&source.entries[part.entry], part.entry))
            .filter(|(stored, _)| matches!(stored.layout, Layout::Packed { .. }))
            .map(|(stored, index)| (stored.name.clone(), index))
            .collect();
        Checkpoint {
            by_name: names.map(|(index, entry)| (entry.name.clone(), index)).collect(),
            source,
            entries,
            parts,
            unpacked,
            adapter: None,
        }
    }

    /// The same checkpoint with the adapter in `folder` merged into its weights: PEFT's LoRA and DoRA, mlx-lm's. Weights that it changes
    /// are plain: packed weights become the type that config.json names, else bfloat16. [`Checkpoint::read_beside`] gives packed weights as
    /// stored.
    ///
    /// # Errors
    /// An adapter of another kind, or that is not for this model; a tensor that is missing or has another shape.
    pub fn adapted(mut self, folder: &Path) -> Result<Checkpoint, Error> {
        let float_type = self.float_type();
        self.adapter = Some(Adapter::open(folder, &mut self.entries, float_type)?);
        Ok(self)
    }

    /// Whether an adapter is merged into the weights.
    pub fn is_adapted(&self) -> bool {
        self.adapter.is_some()
    }

    /// The files of weights that are mapped, those of an adapter too.
    fn mappings(&self) -> Vec<Arc<Mapping>> {
        let adapter = self.adapter.iter().flat_map(Adapter::mappings);
        self.source.storage.mappings().into_iter().chain(adapter).collect()
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// config.json; rebuilt for GGUF.
    pub fn config(&self) -> &Map<String, Value> {
        &self.source.config
    }

    /// The float type that config.json names: that of plain weights, and of activations where the model was trained.
    pub fn float_type(&self) -> Option<FloatType> {
        dtype::of_config(self.config())
    }

    /// How the packed modules of this checkpoint are stored.
    pub fn dialect(&self) -> &Dialect {
        &self.source.dialect
    }

    /// Every weight once, layers in numerical order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Names of the entries that mlx-lm stores under other names or in another order.
    pub fn rearranged(&self) -> impl Iterator<Item = &str> {
        let names = self.entries.iter().map(|entry| entry.name.as_str());
        names.filter(|name| self.parts.contains_key(*name))
    }

    /// The weight of this Hugging Face name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|&index| &self.entries[index])
    }

    /// An entry that [`Checkpoint::entries`] has as part of a plain one only, and that can be read like any other: a packed one under
    /// mlx-lm's name, which packs the parts of a matrix in ways that do not join; blocks or scales of gpt-oss's 4-bit floats.
    pub fn packed_part(&self, name: &str) -> Option<&Entry> {
        let unpacked = self.unpacked.get(name).map(|&index| &self.source.entries[index]);
        unpacked.or_else(|| self.source.parts.iter().find(|part| part.name == name))
    }

    /// The data of an entry of this checkpoint, mapped from the file where the file holds it as such.
    ///
    /// # Errors
    /// A packing mode that is not read, or a file that cannot be; no memory for what must be rearranged.
    pub fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        or_out_of_memory(|| {
            let adapted = self.adapter.as_ref().and_then(|adapter| adapter.change(entry));
            match adapted {
                Some(adapted) => adapted.applied(self.assembled(adapted.stored())?),
                None => self.assembled(entry),
            }
        })?
    }

    /// As [`Checkpoint::read`], for a packed weight that the adapter changes: the weight as it is stored, and what the adapter adds to its
    /// products. `None` for every other weight.
    ///
    /// # Errors
    /// As [`Checkpoint::read`].
    pub fn read_beside(&self, entry: &Entry) -> Result<Option<Beside>, Error> {
        let adapted = self.adapter.as_ref().and_then(|adapter| adapter.change(entry));
        let Some(adapted) = adapted.filter(|adapted| matches!(adapted.stored().layout, Layout::Packed { .. })) else {
            return Ok(None);
        };
        or_out_of_memory(|| adapted.beside(self.assembled(adapted.stored())?))?
    }

    /// How an entry is stored, whatever an adapter makes of it.
    pub fn stored_layout<'a>(&'a self, entry: &'a Entry) -> &'a Layout {
        let stored = self.adapter.as_ref().and_then(|adapter| adapter.stored(entry));
        &stored.unwrap_or(entry).layout
    }

    fn assembled(&self, entry: &Entry) -> Result<Weight, Error> {
        let Some(parts) = self.parts.get(&entry.name) else {
            return self.source.storage.read(entry);
        };
        let read = |part: &Part| self.source.storage.read(&self.source.entries[part.entry]);
        let weights: Result<Vec<Weight>, Error> = parts.iter().map(read).collect();
        let views = parts.iter().map(|part| &part.view);
        Ok(assemble(entry, weights?.into_iter().zip(views).collect()))
    }

    /// One tensor as it is stored: `P.scales` of a packed module too.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        let found = self.source.storage.tensor(name)?;
        found.ok_or_else(|| Error::missing(self.path(), format!("the checkpoint has no tensor `{name}`")))
    }

    /// A file by its name in the folder (`tokenizer.json`, `chat_template.jinja`, ..); `None` if there is none. For GGUF the
    /// files are rebuilt in memory.
    ///
    /// # Errors
    /// A file that cannot be read or is far too large, or a name that leaves the folder.
    pub fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.source.storage.file(name)
    }

    /// A file by its name in the folder, of any size, to be read to its end; `None` if there is none.
    ///
    /// # Errors
    /// As [`Checkpoint::file`].
    pub fn read_through(&self, name: &str) -> Result<Option<Box<dyn Read>>, Error> {
        self.source.storage.read_through(name)
    }

    /// That the files of weights are as they were when they were opened: their sizes, their times.
    ///
    /// # Errors
    /// [`Error::Changed`] names the file.
    pub fn check_unchanged(&self) -> Result<(), Error> {
        let mappings = self.mappings();
        mappings.iter().try_for_each(|mapping| mapping.check_unchanged())
    }

    /// What its files are, for a run that is to go on with what another made of them: (which file, its size and time).
    ///
    /// # Errors
    /// config.json cannot be read again.
    pub fn identity(&self) -> Result<Run, Error> {
        let mappings = self.mappings();
        let mut identity: Run = mappings.iter().map(|mapping| mapping.identity()).collect();
        let mut config = Checksum::default();
        config.update(self.file("config.json")?.as_deref().unwrap_or_default());
        identity.push((
            "config.json of the source".to_owned(),
            format!("{:016x}", config.value()),
        ));
        identity.extend(self.adapter.as_ref().map(Adapter::identity));
        Ok(identity)
    }

    /// What tells whoever outlives this checkpoint, and still reads its weights, that a file was cut.
    pub fn files_read(&self) -> FilesRead {
        FilesRead(self.mappings())
    }

    /// Names of the files that a conversion carries over: everything but weights in any format, their indexes, config.json,
    /// README.md, hidden files and the folders of other runtimes (`onnx/`, `openvino/`, ..). Parts are joined by `/`.
    pub fn files(&self) -> &[String] {
        &self.source.files
    }

    /// Names of files as [`Checkpoint::files`] that are links to files elsewhere, neither in the folder nor in the cache of the Hub:
    /// a conversion copies them only if told.
    pub fn linked_files(&self) -> &[String] {
        &self.source.linked
    }

    /// Names of files as [`Checkpoint::files`] of more than 512 MiB: a conversion does not copy them.
    pub fn large_files(&self) -> &[String] {
        &self.source.large
    }

    /// What is odd about the checkpoint, though it can be read: an index that does not fit its files.
    pub fn notices(&self) -> &[String] {
        &self.source.notices
    }

    /// Whether this folder is the checkpoint, holds it, or holds a file that its weights are read from: writing there would destroy
    /// what is read.
    pub fn is_in(&self, folder: &Path) -> bool {
        let Ok(folder) = folder.canonicalize() else {
            return false;
        };
        let is_inside = |path: &Path| path.canonicalize().is_ok_and(|path| path.starts_with(&folder));
        let mappings = self.mappings();
        is_inside(self.path()) || mappings.iter().any(|mapping| is_inside(mapping.path()))
    }

    /// Tells the system that the mapped pages of an entry are not needed for now, so that reading a whole checkpoint one
    /// entry at a time stays in bounded memory. Data already handed out stays valid: touching it reads the file again.
    pub fn release(&self, entry: &Entry) {
        match self.parts.get(&entry.name) {
            Some(parts) => parts
                .iter()
                .for_each(|part| self.source.storage.release(&self.source.entries[part.entry])),
            None => self.source.storage.release(entry),
        }
    }

    /// As [`Checkpoint::release`], for all that was read so far.
    pub fn release_all(&self) {
        self.source.storage.release_all();
    }
}
