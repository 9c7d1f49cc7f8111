//! Models by name: a local folder, a `.gguf` file, or a Hub id, fetched into the cache that Python's huggingface_hub uses.
//!
//! Protocol: `GET {endpoint}/api/models/{id}/revision/{revision}` lists the files and names the commit; `HEAD` and `GET` of
//! `{endpoint}/{id}/resolve/{commit}/{file}` give size, etag and content (<https://huggingface.co/docs/huggingface_hub>).

mod answers;
mod cache;
#[cfg(not(fuzzing))]
mod client;
#[cfg(fuzzing)]
#[path = "no_client.rs"]
mod client;
mod error;
#[cfg(fuzzing)]
pub mod fuzz;
mod select;
mod settings;

use std::path::{Path, PathBuf};

pub use error::HubError;
pub use settings::Settings;

use answers::Listing;
use cache::RepoCache;
use client::Client;

/// A step of a download, for progress display.
#[derive(Debug, Clone, Copy)]
pub enum Download<'a> {
    /// A file begins; `done_bytes` were there from an earlier, interrupted run.
    Start {
        /// Path inside the repository.
        file: &'a str,
        /// Size of the whole file.
        total_bytes: u64,
        /// Bytes that need no transfer.
        done_bytes: u64,
    },
    /// More of the current file has arrived.
    Received {
        /// Bytes since the last step.
        bytes: u64,
    },
    /// The current file is whole.
    End,
    /// Something worth telling: a retry, or a fall back on cached files.
    Notice(&'a str),
}

/// Receives the steps of a download.
pub type OnDownload<'a> = dyn FnMut(Download<'_>) + 'a;

/// The local path of `model`: itself if it exists, otherwise the snapshot of the Hub id `org/name` (or `org/name/file.gguf`)
/// at `revision` (a branch, tag or commit; `main` when absent), downloaded as far as it is not in the cache yet.
pub fn resolve(model: &str, revision: Option<&str>, on_download: &mut OnDownload) -> Result<PathBuf, HubError> {
    resolve_with(&Settings::from_environment(), model, revision, on_download)
}

/// [`resolve`] with settings that do not come from the environment.
pub fn resolve_with(
    settings: &Settings,
    model: &str,
    revision: Option<&str>,
    on_download: &mut OnDownload,
) -> Result<PathBuf, HubError> {
    let local = Path::new(model);
    if local.exists() {
        return match revision {
            None => Ok(local.to_path_buf()),
            Some(_) => Err(HubError::RevisionOfLocal { model: model.into() }),
        };
    }
    let Some(id) = RepoFile::parse(model) else {
        return Err(HubError::NotFoundLocally { model: model.into() });
    };
    fetch(settings, &id, revision.unwrap_or("main"), on_download)
}

/// A Hub id, and the one file wanted if it names one.
#[derive(Debug, Clone, PartialEq)]
struct RepoFile {
    id: String,
    file: Option<String>,
}

impl RepoFile {
    /// `name`, `org/name` or `org/name/path.gguf`, also as a page of the Hub; `None` for what can only be a local path.
    fn parse(model: &str) -> Option<RepoFile> {
        let model = without_host(model);
        let model = model.strip_suffix('/').unwrap_or(model);
        let mut parts = model.splitn(3, '/');
        let (first, second, rest) = (parts.next()?, parts.next(), parts.next());
        let word = |text: &str| {
            let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
            plain && !text.is_empty() && !text.starts_with(['.', '-']) && !text.contains("..") && !text.contains("--")
        };
        match (second, rest) {
            _ if !word(first) => None,
            (None, _) => (!first.ends_with(".gguf")).then(|| RepoFile {
                id: first.into(),
                file: None,
            }),
            (Some(name), _) if !word(name) => None,
            (Some(name), None) => (!name.ends_with(".gguf")).then(|| RepoFile {
                id: format!("{first}/{name}"),
                file: None,
            }),
            (Some(name), Some(file)) => (file.ends_with(".gguf") && select::is_safe(file)).then(|| RepoFile {
                id: format!("{first}/{name}"),
                file: Some(file.into()),
            }),
        }
    }
}

/// The Hub id `org/name` that a name stands for, if it is no local path.
pub fn repository(model: &str) -> Option<String> {
    match Path::new(model).exists() {
        true => None,
        false => RepoFile::parse(model).map(|wanted| wanted.id),
    }
}

/// What people copy from the address bar, as an id.
fn without_host(model: &str) -> &str {
    let rest = model.strip_prefix("https://").or_else(|| model.strip_prefix("http://"));
    let hosts = ["huggingface.co/", "www.huggingface.co/", "hf.co/"];
    let Some(id) = hosts.iter().find_map(|host| rest.unwrap_or(model).strip_prefix(host)) else {
        return model;
    };
    // The page of a branch or file is the page of the repository.
    let id = id.split(['?', '#']).next().unwrap_or(id);
    id.find("/tree/").map_or(id, |at| &id[..at])
}

/// Downloads what a checkpoint needs and returns the snapshot folder, or the `.gguf` file in it.
fn fetch(
    settings: &Settings,
    wanted: &RepoFile,
    revision: &str,
    on_download: &mut OnDownload,
) -> Result<PathBuf, HubError> {
    let cache = RepoCache::new(&settings.cache, &wanted.id);
    if settings.offline {
        return cached(&cache, wanted, revision).ok_or_else(|| HubError::Offline {
            id: wanted.id.clone(),
            revision: revision.into(),
            cache: settings.cache.clone(),
        });
    }
    let client = Client::new(settings);
    let listing = match client.listing(&wanted.id, revision, on_download) {
        Ok(listing) => listing,
        Err(error) if error.is_unreachable() => {
            let path = cached(&cache, wanted, revision).ok_or(error)?;
            on_download(Download::Notice(&format!(
                "the Hub cannot be reached: using the cached files of {}",
                wanted.id
            )));
            return Ok(path);
        }
        Err(error) => return Err(error),
    };
    let files = select::wanted_files(wanted, &listing.files)?;
    for file in &files {
        fetch_file(&client, &cache, wanted, &listing, file, on_download)?;
    }
    if let Some(index) = files.iter().find(|file| *file == select::INDEX) {
        let path = cache.snapshot(&listing.commit).join(index);
        for shard in select::shards_of(&path, &listing.files)? {
            fetch_file(&client, &cache, wanted, &listing, &shard, on_download)?;
        }
    }
    cache.write_ref(revision, &listing.commit)?;
    let folder = cache.snapshot(&listing.commit);
    Ok(select::gguf_of(&files).map_or(folder.clone(), |file| folder.join(file)))
}

fn fetch_file(
    client: &Client,
    cache: &RepoCache,
    wanted: &RepoFile,
    listing: &Listing,
    file: &str,
    on_download: &mut OnDownload,
) -> Result<(), HubError> {
    if cache.snapshot(&listing.commit).join(file).exists() {
        return Ok(());
    }
    let remote = client.metadata(&wanted.id, &listing.commit, file, on_download)?;
    let _lock = cache.lock(&remote.content.etag)?;
    let blob = cache.blob(&remote.content.etag)?;
    if !blob.exists() {
        client.download(&remote, &cache.incomplete(&remote.content.etag)?, &blob, on_download)?;
    }
    cache.link(&listing.commit, file, &blob)
}

/// The snapshot in the cache, if it holds a checkpoint that can be opened.
fn cached(cache: &RepoCache, wanted: &RepoFile, revision: &str) -> Option<PathBuf> {
    let folder = cache.snapshot(&cache.read_ref(revision)?);
    match &wanted.file {
        Some(file) => Some(folder.join(file)).filter(|path| path.exists()),
        None if folder.join("config.json").exists() => select::is_whole(&folder).then_some(folder),
        None => select::only_gguf(&folder),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_paths_are_told_apart() {
        let id = |text: &str| RepoFile::parse(text).map(|parsed| (parsed.id, parsed.file));
        assert_eq!(id("gpt2"), Some(("gpt2".into(), None)));
        assert_eq!(id("org/name-1.5_b"), Some(("org/name-1.5_b".into(), None)));
        assert_eq!(
            id("org/name/a/b.gguf"),
            Some(("org/name".into(), Some("a/b.gguf".into())))
        );
        for page in [
            "org/name/",
            "hf.co/org/name",
            "huggingface.co/org/name/",
            "https://huggingface.co/org/name",
            "https://huggingface.co/org/name/tree/main",
            "https://hf.co/org/name?library=transformers",
        ] {
            assert_eq!(id(page), Some(("org/name".into(), None)), "{page}");
        }
        assert_eq!(id("https://example.com/org/name"), None);
        let paths = [
            "",
            "./x",
            "/x/y",
            "~/x",
            "a/b/c",
            "x.gguf",
            "dir/x.gguf",
            "org/../name",
            "a--b/c",
            "o/n/../../x.gguf",
        ];
        for path in paths {
            assert_eq!(id(path), None, "{path}");
        }
    }
}
