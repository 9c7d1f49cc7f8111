//! One repository's folder in the cache, laid out as huggingface_hub does:
//! `models--org--name/{blobs/<etag>, refs/<revision>, snapshots/<commit>/<file> -> ../../blobs/<etag>}` and `.locks` beside.

use std::fs::{self, File};
use std::path::{Component, Path, PathBuf};

use super::HubError;
use super::answers::is_commit;

pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

/// Held while a blob is written; Python's downloads of the same blob wait for it, and ours for theirs.
pub(super) struct BlobLock {
    _file: File,
}

impl RepoCache {
    pub(super) fn new(cache: &Path, id: &str) -> RepoCache {
        let name = format!("models--{}", id.replace('/', "--"));
        RepoCache {
            folder: cache.join(&name),
            locks: cache.join(".locks").join(name),
        }
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    pub(super) fn blob(&self, etag: &str) -> Result<PathBuf, HubError> {
        let folder = self.folder.join("blobs");
        fs::create_dir_all(&folder).map_err(HubError::cache(&folder))?;
        Ok(folder.join(etag))
    }

    pub(super) fn incomplete(&self, etag: &str) -> Result<PathBuf, HubError> {
        self.blob(&format!("{etag}.incomplete"))
    }

    pub(super) fn lock(&self, etag: &str) -> Result<BlobLock, HubError> {
        fs::create_dir_all(&self.locks).map_err(HubError::cache(&self.locks))?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::create(&path).map_err(HubError::cache(&path))?;
        file.lock().map_err(HubError::cache(&path))?;
        Ok(BlobLock { _file: file })
    }

    /// The commit that a branch or tag had when it was last fetched; a commit stands for itself.
    pub(super) fn read_ref(&self, revision: &str) -> Option<String> {
        if self.snapshot(revision).is_dir() && is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        is_commit(commit.trim()).then(|| commit.trim().to_owned())
    }

    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        make_parent(&path)?;
        fs::write(&path, commit).map_err(HubError::cache(&path))
    }

    /// Makes `file` of the snapshot a relative link to its blob, or a copy where links are not to be had.
    pub(super) fn link(&self, commit: &str, file: &str, blob: &Path) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(file);
        make_parent(&path)?;
        let up = Path::new(file)
            .components()
            .filter(|part| matches!(part, Component::Normal(_)))
            .count()
            + 1;
        let target: PathBuf = std::iter::repeat_n("..", up).collect();
        let target = target.join("blobs").join(blob.file_name().unwrap_or_default());
        match make_link(&target, &path) {
            Ok(()) => Ok(()),
            Err(_) if path.exists() => Ok(()),
            Err(_) => {
                let copy = path.with_extension("copying");
                fs::copy(blob, &copy)
                    .and_then(|_| fs::rename(&copy, &path))
                    .map_err(HubError::cache(&path))
            }
        }
    }
}

fn make_parent(path: &Path) -> Result<(), HubError> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).map_err(HubError::cache(parent)),
        None => Ok(()),
    }
}

#[cfg(unix)]
fn make_link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(windows)]
fn make_link(target: &Path, path: &Path) -> std::io::Result<()> {
    std::os::windows::fs::symlink_file(target, path)
}
