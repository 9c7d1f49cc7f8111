//! A Hugging Face folder that lies in memory: a model that a program carries inside.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::folder::map::MappedFile;
use crate::folder::tensors::Tensors;
use crate::folder::weights::Weights;
use crate::folder::{files, parse_object};
use crate::source::{Source, Storage};
use crate::{Dialect, Entry, Error, Tensor, Weight, modules};

/// The data of a folder in memory.
struct Memory {
    contents: Vec<(String, Bytes)>,
    weights: Weights,
}

/// Opens the files of one folder, `model.safetensors` and `config.json` among them. `name` stands for the folder in messages.
pub(crate) fn open(name: &str, contents: Vec<(String, Bytes)>) -> Result<Source, Error> {
    let origin = PathBuf::from(name);
    let content = |file: &str| {
        let found = contents
            .iter()
            .find(|(name, _)| name == file)
            .map(|(_, data)| data.clone());
        found.ok_or_else(|| Error::missing(&origin.join(file), "a Hugging Face model folder has one"))
    };
    let config_file = origin.join("config.json");
    let config = parse_object(&config_file, &content("config.json")?)?;
    let dialect = Dialect::from_config(&config, &config_file)?;
    let mut tensors = Tensors::default();
    tensors.add(
        &origin.join("model.safetensors"),
        MappedFile::of_bytes(content("model.safetensors")?),
    )?;
    let entries = modules::entries(&tensors, &dialect, &config_file)?;
    let carried = contents
        .iter()
        .map(|(name, _)| name.clone())
        .filter(|name| files::is_carried(name));
    Ok(Source {
        config,
        entries,
        files: carried.collect(),
        linked: Vec::new(),
        notices: Vec::new(),
        storage: Box::new(Memory {
            weights: Weights {
                origin: origin.clone(),
                tensors,
                biases_suffix: dialect.biases_suffix().unwrap_or_default(),
            },
            contents,
        }),
        path: origin,
        dialect,
    })
}

impl Storage for Memory {
    fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        self.weights.read(entry)
    }

    fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        Ok(self.weights.tensors.read(name))
    }

    fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let mut contents = self.contents.iter();
        let found = contents.find(|(file, _)| Path::new(file) == Path::new(name));
        Ok(found.map(|(_, data)| data.clone()))
    }

    fn release(&self, _: &Entry) {}

    fn release_all(&self) {}
}
