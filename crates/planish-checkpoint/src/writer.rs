//! Writes a model folder: safetensors of planned tensors, other files, all or nothing.
//!
//! The tensors are planned first, because the header precedes the data and sizes fix every position; then each is written
//! once, whole or in parts, in any order, straight to its place. Within a file the widest types come first, as safetensors
//! orders them, so that every tensor is aligned. A journal says which tensors are whole, so that another run can go on.

mod journal;
mod plan;
mod staged_file;
mod staging;
mod swap;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::checksum::Checksum;
use crate::{Dtype, Error};
use journal::{Found, Journal};
use plan::{Place, Shard};
use staging::Staging;

pub use journal::Run;
pub(crate) use staged_file::StagedFile;

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
    /// What a run must have in common with this one to go on with its folder.
    pub run: Run,
    /// Go on with the folder that a run of this kind left unfinished, if there is one; leave it there if this one does not finish
    /// either.
    pub resume: bool,
}

impl Default for WriterOptions {
    fn default() -> WriterOptions {
        WriterOptions {
            force: false,
            max_shard_bytes: 5_000_000_000,
            format: "pt",
            run: Run::new(),
            resume: false,
        }
    }
}

/// A folder being written. It lies beside the target under a hidden name until [`Writer::finish`] renames it; dropped
/// before, it is removed, unless it is to be gone on with and a tensor of it is whole.
pub struct Writer {
    staging: Staging,
    journal: Journal,
    /// It is to be gone on with.
    kept: bool,
    shards: Vec<Shard>,
    files: Vec<File>,
    places: HashMap<String, Place>,
    unwritten_bytes: u64,
}

impl Writer {
    /// Starts writing `target`, a folder that must not exist unless `force` is set; or goes on with what another run left.
    ///
    /// # Errors
    /// A target that exists or cannot be written; two tensors of one name; sizes that overflow; an unfinished folder of a run that
    /// is alive, or of another kind.
    pub fn create(target: &Path, planned: Vec<Planned>, options: &WriterOptions) -> Result<Writer, Error> {
        let (shards, places) = plan::shards(target, planned, options)?;
        let mut run = options.run.clone();
        run.push(("the list of tensors".to_owned(), fingerprint(&shards)));
        let resumed = match options.resume {
            true => unfinished(target, options.force, &run)?,
            false => None,
        };
        let (staging, found) = match resumed {
            Some((staging, found)) => (staging, Some(found)),
            None => (Staging::create(target, options.force)?, None),
        };
        if found.is_some() {
            clear_but(staging.folder(), &shards).map_err(Error::io(staging.target()))?;
        }
        let mut files = Vec::new();
        for shard in &shards {
            let shown = staging.target().join(&shard.name);
            files.push(start_shard(&staging.folder().join(&shard.name), shard).map_err(Error::io(&shown))?);
        }
        let journal = match &found {
            Some(found) => Journal::resume(staging.folder(), found),
            None => Journal::create(staging.folder(), &run),
        };
        let mut writer = Writer {
            journal: journal.map_err(Error::io(staging.target()))?,
            kept: options.resume,
            unwritten_bytes: places.values().map(|place| place.size_bytes).sum(),
            staging,
            shards,
            files,
            places,
        };
        if let Some(found) = found {
            writer.take_over(&found)?;
        }
        Ok(writer)
    }

    /// That `target` may be written, for whoever has much to do before it is.
    ///
    /// # Errors
    /// A target that exists, unless a model's and `force` is set.
    pub fn check_target(target: &Path, force: bool) -> Result<(), Error> {
        staging::check_target(target, force).map(|_| ())
    }

    /// Whether a run to `target` that is no longer alive left something to go on with.
    pub fn is_unfinished(target: &Path) -> bool {
        staging::left_behind(target, journal::NAME)
    }

    /// Whether one of these tensors is yet to be written: then all of them are, from their beginning.
    ///
    /// # Panics
    /// If a tensor is not planned.
    pub fn needs<'a>(&mut self, names: impl IntoIterator<Item = &'a str> + Clone) -> bool {
        let is_whole = |name: &str| {
            let place = self.places.get(name);
            let place = place.unwrap_or_else(|| panic!("tensor `{name}` is not planned"));
            place.written_bytes == place.size_bytes
        };
        if names.clone().into_iter().all(is_whole) {
            return false;
        }
        for name in names {
            if let Some(place) = self.places.get_mut(name) {
                self.unwritten_bytes += place.written_bytes;
                place.written_bytes = 0;
                place.checksum = Checksum::default();
            }
        }
        true
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
        place.checksum.update(data);
        let mut file = &self.files[place.shard];
        let mut done = file.seek(SeekFrom::Start(position)).and_then(|_| file.write_all(data));
        if place.written_bytes == place.size_bytes {
            done = done.and_then(|()| self.journal.add(name, place.checksum.value()));
            self.staging.keep(self.kept);
        }
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
        let target = self.staging.target().to_path_buf();
        self.journal.remove().map_err(Error::io(&target))?;
        self.staging.publish()
    }

    /// What the journal says to be whole and is.
    fn take_over(&mut self, found: &Found) -> Result<(), Error> {
        for (name, checksum) in &found.whole {
            let Some(place) = self.places.get_mut(name) else {
                continue;
            };
            let file = &self.files[place.shard];
            let shown = self.staging.target().join(&self.shards[place.shard].name);
            let read = checksum_of(file, place.position, place.size_bytes).map_err(Error::io(&shown))?;
            if read.value() == *checksum {
                place.written_bytes = place.size_bytes;
                place.checksum = read;
                self.unwritten_bytes -= place.size_bytes;
                self.staging.keep(self.kept);
            }
        }
        Ok(())
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

/// What places all tensors, in a word.
fn fingerprint(shards: &[Shard]) -> String {
    let mut sum = Checksum::default();
    for shard in shards {
        sum.update(shard.name.as_bytes());
        sum.update(&shard.header);
    }
    format!("{:016x}", sum.value())
}

/// The folder that a run of this kind left, with most in it, and what is whole. Others go.
fn unfinished(target: &Path, force: bool, run: &Run) -> Result<Option<(Staging, Found)>, Error> {
    let found = Staging::unfinished(target, force)?.into_iter();
    let found = found.filter_map(|staging| Found::read(staging.folder()).map(|found| (staging, found)));
    let (mut alike, others): (Vec<_>, Vec<_>) = found.partition(|(_, found)| found.difference(run).is_none());
    alike.sort_by_key(|(_, found)| found.whole.len());
    let Some((staging, found)) = alike.pop() else {
        return match others.first().and_then(|(_, found)| found.difference(run)) {
            Some(what) => Err(Error::OtherRun {
                path: target.to_path_buf(),
                what,
            }),
            None => Ok(None),
        };
    };
    for (mut other, _) in alike.into_iter().chain(others) {
        other.keep(false);
    }
    Ok(Some((staging, found)))
}

/// Removes what is no shard, as other files of the source, which may have changed. The journal is written anew.
fn clear_but(folder: &Path, shards: &[Shard]) -> io::Result<()> {
    for item in std::fs::read_dir(folder)? {
        let item = item?;
        let is_shard = shards.iter().any(|shard| item.file_name() == shard.name.as_str());
        match item.file_type()?.is_dir() {
            true => std::fs::remove_dir_all(item.path())?,
            false if is_shard || item.file_name() == journal::NAME => {}
            false => std::fs::remove_file(item.path())?,
        }
    }
    Ok(())
}

/// A shard's file with its header and full length; what data it has stays.
fn start_shard(path: &Path, shard: &Shard) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options.create(true).truncate(false).read(true).write(true).open(path)?;
    file.write_all(&shard.header)?;
    file.set_len(shard.size_bytes)?;
    Ok(file)
}

/// The checksum of a part of a file.
fn checksum_of(mut file: &File, position: u64, size_bytes: u64) -> io::Result<Checksum> {
    file.seek(SeekFrom::Start(position))?;
    let mut sum = Checksum::default();
    let mut part = file.take(size_bytes);
    let mut buffer = vec![0; 1 << 18];
    loop {
        match part.read(&mut buffer) {
            Ok(0) => return Ok(sum),
            Ok(count) => sum.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
