//! The tensors of all shards by name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::header;
use super::map::MappedFile;
use crate::{Dtype, Error, Tensor};

/// Where a tensor lies. `range` is checked to be inside its file and to fit dtype and shape.
#[derive(Clone, Debug)]
pub(crate) struct Stored {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub shard: usize,
    pub range: Range<usize>,
}

impl Stored {
    pub fn size_bytes(&self) -> u64 {
        self.range.len() as u64
    }
}

struct Shard {
    path: PathBuf,
    file: MappedFile,
}

/// The tensors of one checkpoint.
#[derive(Default)]
pub(crate) struct Tensors {
    shards: Vec<Shard>,
    by_name: BTreeMap<String, Stored>,
}

impl Tensors {
    /// Maps a safetensors file and adds its tensors.
    pub fn add_shard(&mut self, path: &Path) -> Result<(), Error> {
        self.add(path, MappedFile::open(path)?)
    }

    /// Adds the tensors of a safetensors file.
    pub fn add(&mut self, path: &Path, file: MappedFile) -> Result<(), Error> {
        for (name, stored) in header::parse(path, file.bytes(), self.shards.len())? {
            if let Some(first) = self.by_name.get(&name) {
                let what = format!("tensor `{name}` is also in {}", self.shards[first.shard].path.display());
                return Err(Error::malformed(path, what));
            }
            self.by_name.insert(name, stored);
        }
        self.shards.push(Shard {
            path: path.to_path_buf(),
            file,
        });
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&Stored> {
        self.by_name.get(name)
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.by_name.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// The file of a tensor of this checkpoint.
    pub fn file(&self, stored: &Stored) -> &Path {
        &self.shards[stored.shard].path
    }

    pub fn read(&self, name: &str) -> Option<Tensor> {
        let stored = self.get(name)?;
        let data = self.shards[stored.shard].file.bytes().slice(stored.range.clone());
        Some(Tensor {
            dtype: stored.dtype,
            shape: stored.shape.clone(),
            data,
        })
    }

    pub fn release(&self, name: &str) {
        if let Some(stored) = self.get(name) {
            self.shards[stored.shard].file.release(stored.range.clone());
        }
    }

    pub fn release_all(&self) {
        for Shard { file, .. } in &self.shards {
            file.release(0..file.bytes().len());
        }
    }
}
