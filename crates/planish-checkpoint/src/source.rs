//! The seam between [`crate::Checkpoint`] and the kinds of storage it reads: everything known without reading weights, and
//! a reader for the rest.

use std::collections::HashMap;
use std::path::PathBuf;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::{Dialect, Entry, Error, Tensor, Weight, folder, gguf, memory, mlx};

/// An opened folder, in memory or not, or GGUF file.
pub(crate) struct Source {
    /// The folder or file, for messages.
    pub path: PathBuf,
    /// config.json as it is, or as rebuilt.
    pub config: Map<String, Value>,
    /// How packed modules are stored; `Plain` for GGUF.
    pub dialect: Dialect,
    /// Every weight once; names are unique.
    pub entries: Vec<Entry>,
    /// Names of the files that a conversion carries over (tokenizer, templates, generation config, ..).
    pub files: Vec<String>,
    /// Where data comes from.
    pub reader: Reader,
}

impl Source {
    /// The entries under Hugging Face names, where they are stored under names of mlx-lm.
    pub fn mlx_names(&self) -> Option<(Vec<Entry>, HashMap<String, mlx::Place>)> {
        match (&self.reader, &self.dialect) {
            (Reader::Gguf(_), _) | (_, Dialect::Metal { .. }) => None,
            _ => mlx::translate(&self.config, &self.entries),
        }
    }
}

/// Reads data by name.
pub(crate) enum Reader {
    Folder(folder::Reader),
    Memory(memory::Reader),
    Gguf(gguf::Reader),
}

impl Reader {
    /// The data of an entry of this source.
    pub fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        match self {
            Reader::Folder(reader) => reader.read(entry),
            Reader::Memory(reader) => reader.read(entry),
            Reader::Gguf(reader) => reader.read(entry),
        }
    }

    /// One stored tensor; `None` if there is no such name.
    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        match self {
            Reader::Folder(reader) => reader.tensor(name),
            Reader::Memory(reader) => reader.tensor(name),
            Reader::Gguf(reader) => reader.tensor(name),
        }
    }

    /// A file by its name relative to the folder; `None` if there is none.
    pub fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        match self {
            Reader::Folder(reader) => reader.file(name),
            Reader::Memory(reader) => Ok(reader.file(name)),
            Reader::Gguf(reader) => reader.file(name),
        }
    }

    /// Tells the system that the pages of an entry are not needed for now.
    pub fn release(&self, entry: &Entry) {
        match self {
            Reader::Folder(reader) => reader.release(entry),
            Reader::Memory(_) => {}
            Reader::Gguf(reader) => reader.release(entry),
        }
    }

    /// Tells the system that no page is needed for now.
    pub fn release_all(&self) {
        match self {
            Reader::Folder(reader) => reader.release_all(),
            Reader::Memory(_) => {}
            Reader::Gguf(reader) => reader.release_all(),
        }
    }
}
