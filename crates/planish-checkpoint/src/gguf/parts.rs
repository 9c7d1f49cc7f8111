//! A model that is split over several files: `NAME-00001-of-00003.gguf` has the metadata, and each the list of its own tensors.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::fault::Fault;
use super::header::{self, Header};
use crate::Error;
use crate::folder::map::MappedFile;

/// More files than any model has.
const MOST: usize = 99_999;

/// The files of a model, the first of them given and already parsed; `header` gets the tensors of the others.
pub(super) fn open(path: &Path, first: MappedFile, header: &mut Header) -> Result<Vec<MappedFile>, Error> {
    let (number, count) = place(header).map_err(|fault| fault.at(path))?;
    let mut files = vec![first];
    if count == 1 {
        return Ok(files);
    }
    let refuse = |what: String| Err(Error::unsupported(path, what));
    if number != 0 {
        return refuse(format!(
            "part {} of {count} of a split model: give the first",
            number + 1
        ));
    }
    if files[0].mapping().is_none() {
        return refuse(format!(
            "one of {count} parts of a split model, which cannot be read from memory"
        ));
    }
    let mut names: HashSet<String> = header.tensors.iter().map(|tensor| tensor.name.clone()).collect();
    for part in 1..count {
        let path = name_of(path, part, count).ok_or_else(|| {
            let what = format!(
                "one of {count} parts of a split model: expected a name that ends in -00001-of-{count:05}.gguf"
            );
            Error::unsupported(path, what)
        })?;
        if !path.exists() {
            return Err(Error::missing(
                &path,
                format!("part {} of {count} of a split model", part + 1),
            ));
        }
        let file = MappedFile::open(&path)?;
        let mut other = header::parse(file.bytes()).map_err(|fault| fault.at(&path))?;
        let found = place(&other).map_err(|fault| fault.at(&path))?;
        if found != (part, count) {
            let what = format!(
                "expected part {} of {count}, found part {} of {}",
                part + 1,
                found.0 + 1,
                found.1
            );
            return Err(Error::malformed(&path, what));
        }
        for tensor in &mut other.tensors {
            tensor.part = part;
            if !names.insert(tensor.name.clone()) {
                return Err(Error::malformed(
                    &path,
                    format!("tensor `{}` is in an earlier part too", tensor.name),
                ));
            }
        }
        header.tensors.append(&mut other.tensors);
        files.push(file);
    }
    let expected = header
        .metadata
        .count("split.tensors.count")
        .map_err(|fault| fault.at(path))?;
    match expected {
        Some(expected) if expected != header.tensors.len() => {
            let what = format!(
                "expected {expected} tensors in all parts, found {}",
                header.tensors.len()
            );
            Err(Error::malformed(path, what))
        }
        _ => Ok(files),
    }
}

/// Refuses a file that is one of several.
pub(super) fn refuse(header: &Header) -> Result<(), Fault> {
    match place(header)? {
        (_, 1) => Ok(()),
        (_, count) => Err(Fault::unsupported(format!(
            "one of the {count} parts of a split file; join them with `llama-gguf-split --merge` first"
        ))),
    }
}

/// Which part a file is, from 0, and of how many.
fn place(header: &Header) -> Result<(usize, usize), Fault> {
    let count = header.metadata.count("split.count")?.unwrap_or(1).max(1);
    if count > MOST {
        return Err(Fault::key("split.count", &format!("at most {MOST}"), count));
    }
    Ok((header.metadata.count("split.no")?.unwrap_or(0), count))
}

/// The name of another part.
fn name_of(first: &Path, part: usize, count: usize) -> Option<PathBuf> {
    let name = first.file_name()?.to_str()?;
    let (stem, end) = name.split_at(name.len().checked_sub(".gguf".len())?);
    let stem = stem.strip_suffix(&format!("-00001-of-{count:05}"))?;
    Some(first.with_file_name(format!("{stem}-{:05}-of-{count:05}{end}", part + 1)))
}
