//! The other files of a model folder: reading them, and which of them a conversion carries over.

use bytes::Bytes;

use super::map::MappedFile;
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

/// The content of a file, mapped; `None` if there is none of that name.
pub(crate) fn read(root: &Root, name: &str) -> Result<Option<Bytes>, Error> {
    match root.resolve(name)? {
        Some(path) => Ok(Some(MappedFile::open(&path)?.bytes().clone())),
        None => Ok(None),
    }
}

/// The names of the files directly in the folder, sorted.
pub(crate) fn names(root: &Root) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    list(root, "", &mut names, &mut Vec::new())?;
    names.sort();
    Ok(names)
}

/// The names of the files that a conversion carries over, sorted.
pub(crate) fn carried(root: &Root) -> Result<Vec<String>, Error> {
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
    Ok(carried)
}

/// Adds the files and folders of one folder (`""` is the root), with their names from the root; not the hidden ones.
fn list(root: &Root, folder: &str, files: &mut Vec<String>, folders: &mut Vec<String>) -> Result<(), Error> {
    let path = root.join(folder);
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
        // Folders behind links are not followed; files are resolved, so that a link out of the folder is an error here.
        let kind = item.file_type().map_err(Error::io(&path))?;
        if kind.is_dir() {
            folders.push(name);
        } else if kind.is_file() || root.resolve(&name)?.is_some_and(|path| path.is_file()) {
            files.push(name);
        }
    }
    Ok(())
}
