//! Which safetensors files make up a checkpoint.
//!
//! As in transformers `model.safetensors` goes first, then `model.safetensors.index.json`; then, as in mlx-lm, a whole set of
//! `model-00001-of-0000N.safetensors`, and at last the only safetensors file there is.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::paths::Root;
use super::tensors::Tensors;
use super::{files, read_object};
use crate::Error;

const INDEX: &str = "model.safetensors.index.json";

/// Maps the files and reads their headers.
pub(crate) fn open(root: &Root) -> Result<Tensors, Error> {
    if root.resolve("model.safetensors")?.is_some() {
        return open_all(root, ["model.safetensors"]);
    }
    if let Some(index) = read_object(root, INDEX)? {
        return open_index(root, index.get("weight_map"));
    }
    let names = files::names(root)?;
    let names: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    let numbered: Vec<&str> = names
        .iter()
        .copied()
        .filter(|name| shard_count(name).is_some())
        .collect();
    if let Some(count) = numbered.first().and_then(|name| shard_count(name)) {
        let whole = (1..=count.min(99_999)).map(|number| format!("model-{number:05}-of-{count:05}.safetensors"));
        if let Some(lost) = whole.clone().find(|name| !numbered.contains(&name.as_str())) {
            return Err(Error::missing(
                &root.join(&lost),
                format!("found {}", numbered.join(", ")),
            ));
        }
        return open_all(root, whole.collect::<Vec<_>>().iter().map(String::as_str));
    }
    match names[..] {
        [only] => open_all(root, [only]),
        [] => Err(Error::missing(&root.join("model.safetensors"), other_formats(root)?)),
        _ => {
            let what = format!("expected model.safetensors or {INDEX}; found {}", names.join(", "));
            Err(Error::missing(&root.join("model.safetensors"), what))
        }
    }
}

fn open_all<'a>(root: &Root, names: impl IntoIterator<Item = &'a str>) -> Result<Tensors, Error> {
    let mut tensors = Tensors::default();
    for name in names {
        let path = root
            .resolve(name)?
            .ok_or_else(|| Error::missing(&root.join(name), "a shard of the model"))?;
        tensors.add_shard(&path)?;
    }
    Ok(tensors)
}

/// Opens the files that the index names; index and headers must list the same tensors.
fn open_index(root: &Root, weight_map: Option<&Value>) -> Result<Tensors, Error> {
    let path = root.join(INDEX);
    let weight_map = weight_map.and_then(Value::as_object);
    let weight_map = weight_map.ok_or_else(|| Error::malformed(&path, "expected an object under `weight_map`"))?;
    let mut shards: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (tensor, file) in weight_map {
        let file = file.as_str().ok_or_else(|| {
            Error::malformed(
                &path,
                format!("`weight_map.{tensor}`: expected the name of a file, found {file}"),
            )
        })?;
        shards.entry(file).or_default().insert(tensor);
    }
    let mut tensors = Tensors::default();
    for (shard, file) in shards.keys().enumerate() {
        let resolved = root.resolve(file).map_err(|error| match error {
            Error::Malformed { path: outside, what } if outside == root.folder() => {
                Error::malformed(&path, format!("`weight_map`: {what}"))
            }
            other => other,
        })?;
        let resolved =
            resolved.ok_or_else(|| Error::missing(&root.join(file), format!("{INDEX} lists it as a shard")))?;
        tensors.add_shard(&resolved)?;
        let listed = &shards[file];
        for (name, stored) in tensors.iter() {
            if stored.shard == shard && !listed.contains(name) {
                let what = format!("tensor `{name}` of {file} is not listed in `weight_map`");
                return Err(Error::malformed(&path, what));
            }
        }
        if let Some(lost) = listed
            .iter()
            .find(|name| tensors.get(name).is_none_or(|stored| stored.shard != shard))
        {
            let what = format!("tensor `{lost}` is not there, but {INDEX} lists it for this file");
            return Err(Error::malformed(&resolved, what));
        }
    }
    Ok(tensors)
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
fn other_formats(root: &Root) -> Result<String, Error> {
    let names = files::names(root)?;
    let other = names.iter().find(|name| files::is_weights(name));
    Ok(match other {
        Some(gguf) if gguf.ends_with(".gguf") => format!("found {gguf}: pass that file itself"),
        Some(other) => format!("found {other}, a format that planish does not read: convert it to safetensors first"),
        None => "the folder holds no weights".to_string(),
    })
}
