//! The seam between [`crate::Checkpoint`] and the kinds of storage it reads: everything known without reading weights, and
//! where the rest comes from.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::folder::map::Mapping;
use crate::{Dialect, Entry, Error, Tensor, Weight};

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
    /// Tensors that are parts of entries, and can be read by themselves.
    pub parts: Vec<Entry>,
    /// Names of the files that a conversion carries over (tokenizer, templates, generation config, ..).
    pub files: Vec<String>,
    /// Names of such files that links bring from elsewhere.
    pub linked: Vec<String>,
    /// Those that it does not, since they are too large.
    pub large: Vec<String>,
    /// What is odd about the checkpoint, though it can be read.
    pub notices: Vec<String>,
    /// Where data comes from.
    pub storage: Box<dyn Storage>,
}

/// Reads data by name.
pub(crate) trait Storage: Send + Sync {
    /// The data of an entry of this source.
    fn read(&self, entry: &Entry) -> Result<Weight, Error>;

    /// One stored tensor; `None` if there is no such name.
    fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error>;

    /// A file by its name relative to the folder; `None` if there is none.
    fn file(&self, name: &str) -> Result<Option<Bytes>, Error>;

    /// A file by its name, to be read to its end whatever its size; `None` if there is none.
    fn read_through(&self, name: &str) -> Result<Option<Box<dyn Read>>, Error> {
        let reader = |bytes: Bytes| Box::new(io::Cursor::new(bytes)) as Box<dyn Read>;
        Ok(self.file(name)?.map(reader))
    }

    /// The files of weights that are mapped.
    fn mappings(&self) -> Vec<Arc<Mapping>> {
        Vec::new()
    }

    /// Tells the system that the pages of an entry are not needed for now.
    fn release(&self, entry: &Entry);

    /// Tells the system that no page is needed for now.
    fn release_all(&self);
}
