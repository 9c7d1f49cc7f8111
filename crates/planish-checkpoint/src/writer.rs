//! Writes a model folder: safetensors of planned tensors, other files, all or nothing.
//!
//! The tensors are planned first, because the header precedes the data and sizes fix every position; then each is written
//! once, whole or in parts, in any order, straight to its place. Within a file the widest types come first, as safetensors
//! orders them, so that every tensor is aligned.

mod plan;
mod staging;
mod swap;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::{Dtype, Error};
use plan::{Place, Shard};
use staging::Staging;

/// A tensor that will be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// Its name in the file.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
}

/// How a folder is written.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Replace an existing model folder.
    pub force: bool,
    /// Data of one file at most, unless a single tensor is larger.
    pub max_shard_bytes: u64,
    /// `format` in the metadata of the files: [`crate::Dialect::safetensors_format`].
    pub format: &'static str,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions {
            force: false,
            max_shard_bytes: 5_000_000_000,
            format: "pt",
        }
    }
}

/// A folder being written. It lies beside the target under a hidden name until [`Writer::finish`] renames it; dropped
/// before, it is removed.
pub struct Writer {
    staging: Staging,
    shards: Vec<Shard>,
    files: Vec<File>,
    places: HashMap<String, Place>,
    unwritten_bytes: u64,
}

impl Writer {
    /// Starts writing `target`, a folder that must not exist unless `force` is set.
    ///
    /// # Errors
    /// A target that exists or cannot be written; two tensors of one name; sizes that overflow.
    pub fn create(target: &Path, planned: Vec<Planned>, options: &WriterOptions) -> Result<Writer, Error> {
        let (shards, places) = plan::shards(target, planned, options)?;
        let staging = Staging::create(target, options.force)?;
        let unwritten_bytes = places.values().map(|place| place.size_bytes).sum();
        let mut writer = Writer {
            staging,
            shards,
            files: Vec::new(),
            places,
            unwritten_bytes,
        };
        for index in 0..writer.shards.len() {
            let file = writer.start_shard(index)?;
            writer.files.push(file);
        }
        Ok(writer)
    }

    /// Writes all data of a planned tensor: little-endian, row-major.
    ///
    /// # Errors
    /// The disk is full or fails.
    ///
    /// # Panics
    /// If the tensor is not planned, has another size, or was written before.
    pub fn write(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        let size_bytes = self.places.get(name).map(|place| place.size_bytes);
        assert_eq!(Some(data.len() as u64), size_bytes, "size of tensor `{name}`");
        self.append(name, data)
    }

    /// Writes the next part of a planned tensor's data; the parts of several tensors may alternate.
    ///
    /// # Errors
    /// The disk is full or fails.
    ///
    /// # Panics
    /// If the tensor is not planned or the parts exceed its size.
    pub fn append(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        let place = self.places.get_mut(name);
        let place = place.unwrap_or_else(|| panic!("tensor `{name}` is not planned"));
        let position = place.position + place.written_bytes;
        place.written_bytes += data.len() as u64;
        assert!(
            place.written_bytes <= place.size_bytes,
            "tensor `{name}` has more data than planned"
        );
        self.unwritten_bytes -= data.len() as u64;
        let mut file = &self.files[place.shard];
        let done = file.seek(SeekFrom::Start(position)).and_then(|_| file.write_all(data));
        done.map_err(Error::io(&self.staging.target().join(&self.shards[place.shard].name)))
    }

    /// Writes another file. `name` may have folders, joined by `/`.
    ///
    /// # Errors
    /// The disk is full or fails, or the name leaves the folder.
    pub fn add_file(&mut self, name: &str, data: &[u8]) -> Result<(), Error> {
        self.add_file_from(name, &mut &*data)
    }

    /// As [`Writer::add_file`], with all that `data` gives.
    ///
    /// # Errors
    /// As [`Writer::add_file`]; `data` fails.
    pub fn add_file_from(&mut self, name: &str, data: &mut dyn Read) -> Result<(), Error> {
        let shown = self.staging.target().join(name);
        if !crate::folder::paths::is_inside(name) {
            return Err(Error::output(
                self.staging.target(),
                format!("`{name}` is not the name of a file in a folder"),
            ));
        }
        let path = self.staging.folder().join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::io(&shown))?;
        }
        let mut file = File::create(&path).map_err(Error::io(&shown))?;
        std::io::copy(data, &mut file)
            .and_then(|_| file.sync_all())
            .map_err(Error::io(&shown))
    }

    /// Makes sure that everything is on the disk and gives the folder its name. Returns the folder.
    ///
    /// # Errors
    /// The disk is full or fails; another program made the target meanwhile.
    ///
    /// # Panics
    /// If a planned tensor was not written.
    pub fn finish(mut self) -> Result<PathBuf, Error> {
        assert_eq!(
            self.unwritten_bytes, 0,
            "bytes of planned tensors that were not written"
        );
        for (file, shard) in self.files.drain(..).zip(&self.shards) {
            file.sync_all()
                .map_err(Error::io(&self.staging.target().join(&shard.name)))?;
        }
        if self.shards.len() > 1 {
            let index = self.index();
            self.add_file("model.safetensors.index.json", index.as_bytes())?;
        }
        self.staging.publish()
    }

    /// Creates a shard's file, with its header and full length.
    fn start_shard(&self, index: usize) -> Result<File, Error> {
        let shard = &self.shards[index];
        let shown = self.staging.target().join(&shard.name);
        let mut file = File::create_new(self.staging.folder().join(&shard.name)).map_err(Error::io(&shown))?;
        let done = file
            .write_all(&shard.header)
            .and_then(|()| file.set_len(shard.size_bytes));
        done.map_err(Error::io(&shown))?;
        Ok(file)
    }

    fn index(&self) -> String {
        let mut names: Vec<&String> = self.places.keys().collect();
        names.sort();
        let file_of = |name: &String| self.shards[self.places[name].shard].name.clone().into();
        let weight_map: serde_json::Map<_, _> = names.into_iter().map(|name| (name.clone(), file_of(name))).collect();
        let total_size: u64 = self.places.values().map(|place| place.size_bytes).sum();
        let index = json!({"metadata": {"total_size": total_size}, "weight_map": weight_map});
        format!("{index:#}\n")
    }
}
