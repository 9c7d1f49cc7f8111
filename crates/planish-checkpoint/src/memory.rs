//! A Hugging Face folder that lies in memory: a model that a program carries inside.

use std::path::{Path, PathBuf};

use bytes::Bytes;

use crate::folder::map::MappedFile;
use crate::folder::paths::check_inside;
use crate::folder::shards::{self, ModelFiles};
use crate::folder::weights::Weights;
use crate::folder::{files, read_config};
use crate::methods::Listed;
use crate::source::{Source, Storage};
use crate::{Dialect, Entry, Error, Tensor, Weight, modules};

/// The files of a folder in memory.
struct Contents {
    folder: PathBuf,
    files: Vec<(String, Bytes)>,
}

/// The data of a folder in memory.
struct Memory {
    contents: Contents,
    weights: Weights,
}

/// Opens the files of one folder, config.json and weights among them. `name` stands for the folder in messages.
pub(crate) fn open(name: &str, files: Vec<(String, Bytes)>) -> Result<Source, Error> {
    let contents = Contents {
        folder: PathBuf::from(name),
        files,
    };
    let config_file = contents.path("config.json");
    let config = read_config(&contents)?;
    let dialect = Dialect::from_config(&config, &config_file)?;
    let (tensors, notices) = shards::open(&contents)?;
    let Listed {
        entries,
        respelled,
        parts,
    } = modules::entries(&tensors, &dialect, &config_file)?;
    let names = contents.files.iter().map(|(name, _)| name.clone());
    Ok(Source {
        path: contents.folder.clone(),
        config,
        entries,
        parts,
        files: names.filter(|name| files::is_carried(name)).collect(),
        linked: Vec::new(),
        large: Vec::new(),
        notices,
        storage: Box::new(Memory {
            weights: Weights {
                origin: contents.folder.clone(),
                tensors,
                respelled,
                biases_suffix: dialect.biases_suffix().unwrap_or_default(),
            },
            contents,
        }),
        dialect,
    })
}

impl Contents {
    fn get(&self, name: &str) -> Option<&Bytes> {
        let mut files = self.files.iter();
        let found = files.find(|(file, _)| Path::new(file) == Path::new(name));
        found.map(|(_, data)| data)
    }
}

impl ModelFiles for Contents {
    fn folder(&self) -> &Path {
        &self.folder
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        let names = self.files.iter().map(|(name, _)| name.clone());
        let mut names: Vec<String> = names.filter(|name| !name.contains('/')).collect();
        names.sort();
        Ok(names)
    }

    fn has(&self, name: &str) -> Result<bool, Error> {
        check_inside(&self.folder, name)?;
        Ok(self.get(name).is_some())
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.get(name).cloned())
    }

    fn weights(&self, name: &str) -> Result<MappedFile, Error> {
        let found = self.get(name).cloned().map(MappedFile::of_bytes);
        found.ok_or_else(|| Error::missing(&self.path(name), "a file of weights"))
    }
}

impl Storage for Memory {
    fn read(&self, entry: &Entry) -> Result<Weight, Error> {
        self.weights.read(entry)
    }

    fn tensor(&self, name: &str) -> Result<Option<Tensor>, Error> {
        Ok(self.weights.tensors.read(name))
    }

    fn file(&self, name: &str) -> Result<Option<Bytes>, Error> {
        Ok(self.contents.get(name).cloned())
    }

    fn release(&self, _: &Entry) {}

    fn release_all(&self) {}
}
