//! An opened checkpoint: configuration, dialect, named weights and other files, whatever the storage.

use std::collections::HashMap;
use std::path::Path;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::source::Source;
use crate::{Dialect, Entry, Error, Tensor, Weight, folder, gguf, memory, mlx};

/// A Hugging Face folder or a GGUF file, opened for reading.
///
/// Opening reads headers only. Weights are mapped: the files must not be changed while the checkpoint, or anything read from
/// it, is alive.
pub struct Checkpoint {
    source: Source,
    by_name: HashMap<String, usize>,
    /// Entries that mlx-lm stores under other names or in another order.
    places: HashMap<String, mlx::Place>,
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
        let source = if kind.is_dir() {
            folder::open(path)?
        } else if path
            .extension()
            .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"))
        {
            gguf::open(path)?
        } else {
            let what = "expected a model folder or a .gguf file, found another file (for safetensors pass the folder)";
            return Err(Error::unsupported(path, what));
        };
        Ok(Checkpoint::of(source))
    }

    /// Opens a folder whose files lie in memory: (name, content), `config.json` and `model.safetensors` among them. `name`
    /// stands for it in messages. Data should lie at multiples of 8 bytes; packed parts that do not are copied.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn from_memory(name: &str, files: Vec<(String, Bytes)>) -> Result<Checkpoint, Error> {
        memory::open(name, files).map(Checkpoint::of)
    }

    fn of(mut source: Source) -> Checkpoint {
        let mut places = HashMap::new();
        if let Some((entries, found)) = source.mlx_names() {
            (source.entries, places) = (entries, found);
        }
        let by_name = source
            .entries
            .iter()
            .enumerate()
            .map(|(index, entry)| (entry.name.clone(), index))
            .collect();
        Checkpoint {
            source,
            by_name,
            places,
        }
    }

    /// The folder or file.
    pub fn path(&self) -> &Path {
        &self.source.path
    }

    /// config.json; rebuilt for GGUF.
    pub fn config(&self) -> &Map<String, Value> {
        &self.source.config
    }

    /// How the packed modules of this checkpoint are stored.
    pub fn dialect(&self) -> &Dialect {
        &self.source.dialect
    }

    /// Every weight once, layers in numerical order.
    pub fn entries(&self) -> &[Entry] {
        &self.source.entries
    }

    /// The weight of this Hugging Face name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.by_name.get(name).map(|&index| &self.source.entries[index])
    }

    /// The data of an entry of this checkpoint, mapped from the file where the file holds it as such.
    ///
    /// # Errors
    /// A packing mode that is not read, or a file that cannot be.
    pub fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        match self.places.get(&entry.name) {
            Some(place) => place.read(entry, |stored| self.source.reader.read(stored)),
            None => self.source.reader.read(entry),
        }
    }

    /// One tensor as it is stored: `P.scales` of a packed module too.
    ///
    /// # Errors
    /// [`Error::Missing`] if there is no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<Tensor, Error> {
        let found = self.source.reader.tensor(name)?;
        found.ok_or_else(|| Error::missing(self.path(), format!("the checkpoint has no tensor `{name}`")))
    }

    /// A file by its name in the folder (`tokenizer.json`, `chat_template.jinja`, ..); `None` if there is none. For GGUF the
    /// files are rebuilt in memory.
    ///
    /// # Errors
    /// A file that cannot be read, or a name or link that leaves the folder.
    pub fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        self.source.reader.file(name)
    }

    /// Names of the files that a conversion carries over: everything but weights in any format, their indexes, config.json,
    /// README.md, hidden files and the folders of other runtimes (`onnx/`, `openvino/`, ..). Parts are joined by `/`.
    pub fn files(&self) -> &[String] {
        &self.source.files
    }

    /// Tells the system that the mapped pages of an entry are not needed for now, so that reading a whole checkpoint one
    /// entry at a time stays in bounded memory. Data already handed out stays valid: touching it reads the file again.
    pub fn release(&self, entry: &Entry) {
        match self.places.get(&entry.name) {
            Some(place) => place
                .stored()
                .iter()
                .for_each(|stored| self.source.reader.release(stored)),
            None => self.source.reader.release(entry),
        }
    }

    /// As [`Checkpoint::release`], for all that was read so far.
    pub fn release_all(&self) {
        self.source.reader.release_all();
    }
}
