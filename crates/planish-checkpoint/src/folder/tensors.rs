//! The tensors of all shards by name.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::header;
use super::map::{MappedFile, Mapping};
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
    copies: usize,
}

impl Tensors {
    /// Adds the tensors of a safetensors file. A tensor that another file has too must be the same in both.
    pub fn add(&mut self, path: &Path, file: MappedFile) -> Result<(), Error> {
        for (name, stored) in header::parse(path, file.bytes(), self.shards.len())? {
            if let Some(first) = self.by_name.get(&name) {
                let kept = &self.shards[first.shard];
                let same = (first.dtype, &first.shape) == (stored.dtype, &stored.shape)
                    && kept.file.bytes()[first.range.clone()] == file.bytes()[stored.range.clone()];
                if !same {
                    let what = format!("tensor `{name}` is also in {}, with other values", kept.path.display());
                    return Err(Error::malformed(path, what));
                }
                self.copies += 1;
                continue;
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

    /// Tensors that more than one file has, the same in all.
    pub fn copies(&self) -> usize {
        self.copies
    }

    /// In the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.by_name.iter().map(|(name, stored)| (name.as_str(), stored))
    }

    /// The file of a tensor of this checkpoint.
    pub fn file(&self, stored: &Stored) -> &Path {
        &self.shards[stored.shard].path
    }

    /// The files, where they are mapped.
    pub fn mappings(&self) -> Vec<Arc<Mapping>> {
        self.shards
            .iter()
            .filter_map(|shard| shard.file.mapping().cloned())
            .collect()
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
