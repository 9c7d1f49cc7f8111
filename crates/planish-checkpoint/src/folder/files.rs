//! The other files of a model folder: reading them, and which of them a conversion carries over.

use std::io::Read;

use bytes::Bytes;

use super::map::open_file;
use super::paths::Root;
use crate::Error;

/// Folders that hold the same weights for other runtimes.
const OTHER_RUNTIMES: [&str; 8] = [
    "onnx",
    "openvino",
    "coreml",
    "tflite",
    "gguf",
    "original",
    "metal",
    "executorch",
];

/// How the names of weights end, in any format.
const WEIGHTS: [&str; 20] = [
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".bin.index.json",
    ".pt",
    ".pth",
    ".ckpt",
    ".h5",
    ".h5.index.json",
    ".msgpack",
    ".msgpack.index.json",
    ".onnx",
    ".onnx_data",
    ".gguf",
    ".ggml",
    ".tflite",
    ".npz",
    ".mlmodel",
    ".ot",
    ".llamafile",
];

/// How deep folders are looked into for carried files.
const MAX_DEPTH: usize = 4;

/// Whether a file of this name holds weights or their index.
pub(crate) fn is_weights(name: &str) -> bool {
    WEIGHTS.iter().any(|end| name.ends_with(end))
}

/// Whether a conversion carries the file over as it is.
pub(crate) fn is_carried(name: &str) -> bool {
    !is_weights(name) && name != "config.json" && name != "README.md"
}

/// Bytes of a file that is read as a whole, or copied; the largest that are known, tokenizers, have 40 million.
const MOST_BYTES: u64 = 512 << 20;

/// The content of a file; `None` if there is none of that name.
pub(crate) fn read(root: &Root, name: &str) -> Result<Option<Bytes>, Error> {
    let Some(path) = root.resolve(name)? else {
        return Ok(None);
    };
    let (file, metadata) = open_file(&path)?;
    let too_large = |bytes: u64| Error::malformed(&path, format!("expected at most {MOST_BYTES} bytes, found {bytes}"));
    if metadata.len() > MOST_BYTES {
        return Err(too_large(metadata.len()));
    }
    let mut content = Vec::with_capacity(metadata.len() as usize);
    file.take(MOST_BYTES + 1)
        .read_to_end(&mut content)
        .map_err(Error::io(&path))?;
    match content.len() as u64 <= MOST_BYTES {
        true => Ok(Some(content.into())),
        false => Err(too_large(content.len() as u64)),
    }
}

/// A file of any size, to be read to its end.
pub(crate) fn read_through(root: &Root, name: &str) -> Result<Option<Box<dyn Read>>, Error> {
    let Some(path) = root.resolve(name)? else {
        return Ok(None);
    };
    Ok(Some(Box::new(open_file(&path)?.0)))
}

/// The names of the files directly in the folder, sorted.
pub(crate) fn names(root: &Root) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    list(root, "", &mut names, &mut Vec::new())?;
    names.sort();
    Ok(names)
}

/// The names of the files that a conversion carries over, sorted.
pub(crate) struct Carried {
    /// Those that lie in the folder.
    pub own: Vec<String>,
    /// Those that links bring from elsewhere.
    pub linked: Vec<String>,
    /// Those that are not carried, since they are larger than any that belongs to a model: a sparse one, which takes no room, would take
    /// all that it says as a copy.
    pub large: Vec<String>,
}

/// Looks for them.
pub(crate) fn carried(root: &Root) -> Result<Carried, Error> {
    let mut carried = Vec::new();
    let mut folders = vec![String::new()];
    for _ in 0..MAX_DEPTH {
        let mut deeper = Vec::new();
        for folder in &folders {
            list(root, folder, &mut carried, &mut deeper)?;
        }
        deeper.retain(|folder| !OTHER_RUNTIMES.contains(&folder.as_str()));
        folders = deeper;
    }
    carried.retain(|name| is_carried(name));
    carried.sort();
    let is_large =
        |name: &String| std::fs::metadata(root.folder().join(name)).is_ok_and(|file| file.len() > MOST_BYTES);
    let (large, carried): (Vec<String>, Vec<String>) = carried.into_iter().partition(is_large);
    let (linked, own) = carried.into_iter().partition(|name| root.is_elsewhere(name));
    Ok(Carried { own, linked, large })
}

/// Adds the files and folders of one folder (`""` is the root), with their names from the root; not the hidden ones.
fn list(root: &Root, folder: &str, files: &mut Vec<String>, folders: &mut Vec<String>) -> Result<(), Error> {
    let path = root.folder().join(folder);
    for item in std::fs::read_dir(&path).map_err(Error::io(&path))? {
        let item = item.map_err(Error::io(&path))?;
        let Ok(name) = item.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let name = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        // Folders behind links are not followed: they may lead in a circle.
        let kind = item.file_type().map_err(Error::io(&path))?;
        if kind.is_dir() {
            folders.push(name);
        } else if kind.is_file() || root.resolve(&name)?.is_some_and(|path| path.is_file()) {
            files.push(name);
        }
    }
    Ok(())
}
