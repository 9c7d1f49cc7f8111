//! A Hugging Face folder: config.json, safetensors (one file or shards), and whatever lies beside them.

pub(crate) mod files;
pub(crate) mod header;
pub(crate) mod map;
pub(crate) mod paths;
mod python_floats;
pub(crate) mod shards;
pub(crate) mod tensors;
pub(crate) mod watch;
pub(crate) mod weights;

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::methods::Listed;
use crate::source::{Source, Storage};
use crate::{Dialect, Entry, Error, Tensor, Weight, modules};
use map::Mapping;
use paths::Root;
use shards::ModelFiles;
use weights::Weights;

/// The data of a folder.
struct Folder {
    root: Root,
    weights: Weights,
}

/// Opens a folder: reads config.json and the headers, checks that they agree.
pub(crate) fn open(folder: &Path) -> Result<Source, Error> {
    let root = Root::new(folder)?;
    let config_file = folder.join("config.json");
    let config = read_config(&root)?;
    let dialect = Dialect::from_config(&config, &config_file)?;
    let (tensors, notices) = shards::open(&root)?;
    let Listed {
        entries,
        respelled,
        parts,
    } = modules::entries(&tensors, &dialect, &config_file)?;
    let files::Carried { own, linked, large } = files::carried(&root)?;
    let biases_suffix = dialect.biases_suffix().unwrap_or_default();
    let weights = Weights {
        origin: folder.to_path_buf(),
        tensors,
        respelled,
        biases_suffix,
    };
    Ok(Source {
        path: folder.to_path_buf(),
        config,
        dialect,
        entries,
        parts,
        files: own,
        linked,
        large,
        notices,
        storage: Box::new(Folder { root, weights }),
    })
}

/// config.json, which every folder has.
pub(crate) fn read_config(root: &dyn ModelFiles) -> Result<Map<String, Value>, Error> {
    let path = root.path("config.json");
    let data = root.read("config.json")?;
    let data = data.ok_or_else(|| Error::missing(&path, "a Hugging Face model folder has one"))?;
    parse_object(&path, &data)
}

/// The object in a JSON file.
pub(crate) fn parse_object(path: &Path, data: &[u8]) -> Result<Map<String, Value>, Error> {
    let replaced = python_floats::replace(data);
    match serde_json::from_slice(replaced.as_deref().unwrap_or(data)) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(Error::malformed(
            path,
            format!("expected a JSON object, found {}", kind(&other)),
        )),
        Err(error) => Err(Error::malformed(path, format!("expected JSON: {error}"))),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

impl Storage for Folder {
    fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        self.weights.read(entry)
    }

    fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        Ok(self.weights.tensors.read(name))
    }

    fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        files::read(&self.root, name)
    }

    fn read_through(&self, name: &str) -> Result<Option<Box<dyn Read>>, Error> {
        files::read_through(&self.root, name)
    }

    fn mappings(&self) -> Vec<Arc<Mapping>> {
        self.weights.tensors.mappings()
    }

    fn release(&self, entry: &Entry) {
        self.weights.release(entry);
    }

    fn release_all(&self) {
        self.weights.tensors.release_all();
    }
}
