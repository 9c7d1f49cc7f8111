//! Which files of a repository a checkpoint needs: the safetensors weights, configuration, tokenizer and templates; or one
//! GGUF file. Never pickles, other frameworks' weights or subfolders.

use std::fs;
use std::path::{Path, PathBuf};

use super::{HubError, RepoFile};

pub(super) const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";

/// A relative path that stays below its folder, on any system.
pub(super) fn is_safe(file: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part != "." && part != "..";
    !file.contains(['\\', ':', '\0']) && file.split('/').all(part)
}

/// What to fetch first; the shards that an index names come after it.
pub(super) fn wanted_files(wanted: &RepoFile, files: &[String]) -> Result<Vec<String>, HubError> {
    let unusable = |what: String| HubError::Unusable {
        id: wanted.id.clone(),
        what,
    };
    let has = |name: &str| files.iter().any(|file| file == name);
    if let Some(file) = &wanted.file {
        let missing = || HubError::NoSuchFile {
            id: wanted.id.clone(),
            file: file.clone(),
        };
        return has(file).then(|| vec![file.clone()]).ok_or_else(missing);
    }
    if let Some(bad) = files.iter().find(|file| !is_safe(file)) {
        return Err(unusable(format!("the file name {bad:?} leaves the folder")));
    }
    let weights: Vec<&String> = files.iter().filter(|file| is_top_level(file, ".safetensors")).collect();
    if weights.is_empty() {
        return only_gguf_of(&wanted.id, files);
    }
    let small = files.iter().filter(|file| is_configuration(file)).cloned();
    let chosen: Vec<String> = match () {
        () if has(INDEX) => vec![],
        () if has(SINGLE) => vec![SINGLE.into()],
        () => weights.into_iter().cloned().collect(),
    };
    Ok(small.chain(chosen).collect())
}

fn only_gguf_of(id: &str, files: &[String]) -> Result<Vec<String>, HubError> {
    let ggufs: Vec<&String> = files.iter().filter(|file| file.ends_with(".gguf")).collect();
    let what = match ggufs.as_slice() {
        [one] => return Ok(vec![(*one).clone()]),
        [] => "no safetensors weights and no GGUF file".to_owned(),
        several => {
            let names: Vec<&str> = several.iter().map(|name| name.as_str()).collect();
            format!(
                "several GGUF files: name one of them, as {id}/{}: {}",
                names[0],
                names.join(", ")
            )
        }
    };
    Err(HubError::Unusable { id: id.into(), what })
}

fn is_top_level(file: &str, ending: &str) -> bool {
    !file.contains('/') && file.ends_with(ending)
}

fn is_configuration(file: &str) -> bool {
    let top = [".json", ".jinja", ".txt", ".model", ".tiktoken", ".md"]
        .iter()
        .any(|ending| is_top_level(file, ending));
    let licence = file.starts_with("LICENSE") && !file.contains('/');
    top || licence || file.starts_with("additional_chat_templates/") && file.ends_with(".jinja")
}

/// The distinct shards that the index at `path` names, all of them files of the repository.
pub(super) fn shards_of(path: &Path, files: &[String]) -> Result<Vec<String>, HubError> {
    let text = fs::read(path).map_err(HubError::cache(path))?;
    shards(&text, files).map_err(|what| HubError::Cache {
        path: path.into(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, what),
    })
}

/// As [`shards_of`], of the text of an index.
pub(super) fn shards(index: &[u8], files: &[String]) -> Result<Vec<String>, String> {
    let index: serde_json::Value = serde_json::from_slice(index).map_err(|error| error.to_string())?;
    let map = index.get("weight_map").and_then(|map| map.as_object());
    let map = map.ok_or("expected an object weight_map, found none")?;
    let mut shards: Vec<String> = map
        .values()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    shards.sort();
    shards.dedup();
    match shards.iter().find(|shard| !files.contains(shard)) {
        // An index that is left over from another set of files.
        Some(_) if has_numbered(files) => Ok(numbered(files)),
        Some(absent) => Err(format!(
            "weight_map names {absent:?}, which the repository does not hold"
        )),
        None => Ok(shards),
    }
}

/// `model-00001-of-0000N.safetensors`, all of them.
fn numbered(files: &[String]) -> Vec<String> {
    let is_numbered =
        |file: &&String| is_top_level(file, ".safetensors") && file.starts_with("model-") && file.contains("-of-");
    files.iter().filter(is_numbered).cloned().collect()
}

fn has_numbered(files: &[String]) -> bool {
    !numbered(files).is_empty()
}

/// The GGUF file among the chosen files, when that is what was chosen.
pub(super) fn gguf_of(files: &[String]) -> Option<&String> {
    files.iter().find(|file| file.ends_with(".gguf"))
}

/// Whether a cached snapshot holds all its weights.
pub(super) fn is_whole(folder: &Path) -> bool {
    let names: Vec<String> = fs::read_dir(folder)
        .map(|entries| {
            entries
                .flatten()
                .filter_map(|entry| entry.file_name().into_string().ok())
                .collect()
        })
        .unwrap_or_default();
    if names.iter().any(|name| name == INDEX) {
        return shards_of(&folder.join(INDEX), &names)
            .is_ok_and(|shards| shards.iter().all(|shard| folder.join(shard).exists()));
    }
    names
        .iter()
        .any(|name| name.ends_with(".safetensors") && folder.join(name).exists())
}

/// The one GGUF file of a cached snapshot.
pub(super) fn only_gguf(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    let mut ggufs = entries.filter(|path| path.extension().is_some_and(|ending| ending == "gguf") && path.exists());
    ggufs.next().filter(|_| ggufs.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(files: &[&str]) -> Result<Vec<String>, String> {
        let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
        let wanted = RepoFile {
            id: "org/name".into(),
            file: None,
        };
        wanted_files(&wanted, &files).map_err(|error| error.to_string())
    }

    #[test]
    fn only_what_a_checkpoint_needs_is_fetched() {
        let files = [
            "config.json",
            "model.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "onnx/model.onnx",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "README.md",
            "LICENSE",
            "original/params.json",
        ];
        let chosen = choose(&files).unwrap();
        let expected = [
            "config.json",
            "tokenizer.json",
            "tokenizer.model",
            "chat_template.jinja",
            "README.md",
            "LICENSE",
            "model.safetensors",
        ];
        assert_eq!(chosen, expected);
        assert_eq!(choose(&["a.gguf", "README.md"]).unwrap(), ["a.gguf"]);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        assert_eq!(
            choose(&["pytorch_model.bin"]).unwrap_err(),
            "org/name: no safetensors weights and no GGUF file"
        );
        let several = choose(&["a.gguf", "b.gguf"]).unwrap_err();
        assert_eq!(
            several,
            "org/name: several GGUF files: name one of them, as org/name/a.gguf: a.gguf, b.gguf"
        );
        let outside = choose(&["../x.json", "model.safetensors"]).unwrap_err();
        assert_eq!(outside, "org/name: the file name \"../x.json\" leaves the folder");
    }
}
