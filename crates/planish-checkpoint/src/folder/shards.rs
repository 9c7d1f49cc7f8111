//! Which safetensors files make up a checkpoint.
//!
//! As in transformers `model.safetensors` goes first, then `model.safetensors.index.json`; then, as in mlx-lm, a whole set of
//! `model-00001-of-0000N.safetensors`, and at last the only safetensors file there is.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

use super::map::MappedFile;
use super::paths::Root;
use super::tensors::Tensors;
use super::{files, parse_object};
use crate::Error;

const INDEX: &str = "model.safetensors.index.json";

/// The files of one folder, on the disk or in memory, by their names in it.
pub(crate) trait ModelFiles {
    /// The folder, for messages.
    fn folder(&self) -> &Path;

    /// The names of the files directly in the folder, sorted.
    fn names(&self) -> Result<Vec<String>, Error>;

    /// Whether there is a file of that name.
    ///
    /// # Errors
    /// A name that leads out of the folder.
    fn has(&self, name: &str) -> Result<bool, Error>;

    /// The content of a small file; `None` if there is none.
    fn read(&self, name: &str) -> Result<Option<Bytes>, Error>;

    /// The content of a file of weights.
    fn weights(&self, name: &str) -> Result<MappedFile, Error>;

    /// The path of a file, for messages.
    fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }
}

impl ModelFiles for Root {
    fn folder(&self) -> &Path {
        self.folder()
    }

    fn names(&self) -> Result<Vec<String>, Error> {
        files::names(self)
    }

    fn has(&self, name: &str) -> Result<bool, Error> {
        Ok(self.resolve(name)?.is_some())
    }

    fn read(&self, name: &str) -> Result<Option<Bytes>, Error> {
        files::read(self, name)
    }

    fn weights(&self, name: &str) -> Result<MappedFile, Error> {
        MappedFile::open(&self.path(name))
    }
}

/// Maps the files and reads their headers; also says what is odd about them, though they can be read.
pub(crate) fn open(root: &dyn ModelFiles) -> Result<(Tensors, Vec<String>), Error> {
    if root.has("model.safetensors")? {
        return Ok((open_all(root, ["model.safetensors"])?, Vec::new()));
    }
    let names = root.names()?;
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    if let Some(index) = root.read(INDEX)? {
        let index = parse_object(&root.path(INDEX), &index)?;
        return open_index(root, &names, index.get("weight_map"));
    }
    match numbered_set(&names) {
        Some(Ok(whole)) => return with_notices(open_all(root, whole.iter().map(String::as_str))?),
        Some(Err(lost)) => {
            let numbered: Vec<&str> = names.into_iter().filter(|name| shard_count(name).is_some()).collect();
            return Err(Error::missing(
                &root.path(&lost),
                format!("found {}", numbered.join(", ")),
            ));
        }
        None => {}
    }
    match names[..] {
        [only] => with_notices(open_all(root, [only])?),
        [] => Err(Error::missing(&root.path("model.safetensors"), other_formats(root)?)),
        _ => {
            let what = format!("expected model.safetensors or {INDEX}; found {}", names.join(", "));
            Err(Error::missing(&root.path("model.safetensors"), what))
        }
    }
}

/// The numbered files, if there are any: all of them, or the first that is missing.
fn numbered_set(names: &[&str]) -> Option<Result<Vec<String>, String>> {
    let count = names.iter().find_map(|name| shard_count(name))?;
    let whole = (1..=count.min(99_999)).map(|number| format!("model-{number:05}-of-{count:05}.safetensors"));
    Some(match whole.clone().find(|name| !names.contains(&name.as_str())) {
        Some(lost) => Err(lost),
        None => Ok(whole.collect()),
    })
}

fn open_all<'a>(root: &dyn ModelFiles, names: impl IntoIterator<Item = &'a str>) -> Result<Tensors, Error> {
    let mut tensors = Tensors::default();
    for name in names {
        let path = root.path(name);
        if !root.has(name)? {
            return Err(Error::missing(&path, "a shard of the model"));
        }
        tensors.add(&path, root.weights(name)?)?;
    }
    Ok(tensors)
}

fn with_notices(tensors: Tensors) -> Result<(Tensors, Vec<String>), Error> {
    let copies = match tensors.copies() {
        0 => None,
        copies => Some(format!(
            "{copies} tensors are stored more than once, with the same values"
        )),
    };
    Ok((tensors, copies.into_iter().collect()))
}

/// Opens the files that the index names. What they hold is what counts: an index is often left over from another set of files, so
/// where it does not fit, a whole numbered set is taken, or what the files that are there hold, unless a file is missing whose tensors
/// are nowhere else.
fn open_index(
    root: &dyn ModelFiles,
    names: &[&str],
    weight_map: Option<&Value>,
) -> Result<(Tensors, Vec<String>), Error> {
    let path = root.path(INDEX);
    let weight_map = weight_map.and_then(Value::as_object);
    let weight_map = weight_map.ok_or_else(|| Error::malformed(&path, "expected an object under `weight_map`"))?;
    let mut listed: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, file) in weight_map {
        let file = file.as_str().ok_or_else(|| {
            Error::malformed(
                &path,
                format!("`weight_map.{tensor}`: expected the name of a file, found {file}"),
            )
        })?;
        listed.entry(file).or_default().insert(tensor);
    }
    let mut missing = Vec::new();
    let mut present = Vec::new();
    for &file in listed.keys() {
        let found = root.has(file).map_err(|error| match error {
            Error::Malformed { path: outside, what } if outside == root.folder() => {
                Error::malformed(&path, format!("`weight_map`: {what}"))
            }
            other => other,
        })?;
        match found {
            true => present.push(file),
            false => missing.push(file),
        }
    }
    let tensors = match numbered_set(names) {
        Some(Ok(whole)) if !missing.is_empty() || present.is_empty() => {
            open_all(root, whole.iter().map(String::as_str))?
        }
        _ => {
            let tensors = open_all(root, present)?;
            let lost = |file: &&&str| listed[**file].iter().any(|name| tensors.get(name).is_none());
            if let Some(file) = missing.iter().find(lost) {
                return Err(Error::missing(&root.path(file), format!("{INDEX} lists it as a shard")));
            }
            tensors
        }
    };
    let fits = |(name, file): (&String, &Value)| {
        let found = tensors.get(name).map(|stored| tensors.file(stored));
        found.is_some_and(|found| Some(found) == file.as_str().map(|file| root.path(file)).as_deref())
    };
    let wrong = weight_map.iter().filter(|&entry| !fits(entry)).count();
    let unlisted = tensors
        .iter()
        .filter(|(name, _)| !weight_map.contains_key(*name))
        .count();
    let (tensors, mut notices) = with_notices(tensors)?;
    if wrong + unlisted > 0 {
        notices.push(format!(
            "{INDEX} does not fit the files: {wrong} of its tensors are not where it says, {unlisted} tensors are not in it"
        ));
    }
    Ok((tensors, notices))
}

/// N of `model-00001-of-0000N.safetensors`.
fn shard_count(name: &str) -> Option<usize> {
    let (number, count) = name
        .strip_prefix("model-")?
        .strip_suffix(".safetensors")?
        .split_once("-of-")?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if digits(number) && digits(count) {
        count.parse().ok()
    } else {
        None
    }
}

/// Names the weights that are there instead.
fn other_formats(root: &dyn ModelFiles) -> Result<String, Error> {
    let names = root.names()?;
    let other = names.iter().find(|name| files::is_weights(name));
    Ok(match other {
        Some(gguf) if gguf.ends_with(".gguf") => format!("found {gguf}: pass that file itself"),
        Some(other) => format!("found {other}, a format that planish does not read: convert it to safetensors first"),
        None => "the folder holds no weights".to_string(),
    })
}
