//! Names of files in a model folder, kept inside it: no `..`, no absolute names. Links are followed wherever they lead, since people
//! keep weights elsewhere; but what a link brings from elsewhere is not copied into another folder.
//!
//! A folder of the Hub cache (`models--ORG--NAME/snapshots/REVISION`) is made of links to `models--ORG--NAME/blobs`: what lies in
//! such a cache is no secret of the user.

use std::path::{Component, Path, PathBuf};

use crate::Error;

/// A model folder and the folder that its own files lie in.
pub(crate) struct Root {
    folder: PathBuf,
    boundary: PathBuf,
}

impl Root {
    pub fn new(folder: &Path) -> Result<Root, Error> {
        let real = folder.canonicalize().map_err(Error::io(folder))?;
        let boundary = hub_repository(&real).unwrap_or(&real).to_path_buf();
        Ok(Root {
            folder: folder.to_path_buf(),
            boundary,
        })
    }

    /// The folder as the user wrote it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The path of a file of this folder; `None` if there is none.
    pub fn resolve(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        check_inside(&self.folder, name)?;
        let path = self.folder.join(name);
        match std::fs::metadata(&path) {
            Ok(_) => Ok(Some(path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&path)(error)),
        }
    }

    /// Whether a file of this folder lies elsewhere: neither in it nor in the cache of the Hub.
    pub fn is_elsewhere(&self, name: &str) -> bool {
        let real = self.folder.join(name).canonicalize();
        real.is_ok_and(|real| !real.starts_with(&self.boundary) && !is_in_hub_cache(&real))
    }
}

/// Whether a name has only plain parts, so that it stays in the folder it is joined to.
pub(crate) fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// Refuses a name that leads out of the folder.
pub(crate) fn check_inside(folder: &Path, name: &str) -> Result<(), Error> {
    match is_inside(name) {
        true => Ok(()),
        false => {
            let what = format!("`{name}` is not the name of a file in this folder");
            Err(Error::malformed(folder, what))
        }
    }
}

/// Whether a path without links is `.. /models--ORG--NAME/blobs/ETAG` or `.. /models--ORG--NAME/snapshots/..`.
fn is_in_hub_cache(real: &Path) -> bool {
    let mut folders = real.ancestors().skip(1);
    folders.any(|folder| {
        let kept = folder
            .file_name()
            .is_some_and(|name| name == "blobs" || name == "snapshots");
        let repository = folder.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        kept && repository.is_some_and(|name| name.starts_with("models--"))
    })
}

/// `models--ORG--NAME` of a path `models--ORG--NAME/snapshots/REVISION`.
fn hub_repository(folder: &Path) -> Option<&Path> {
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?;
    let name = repository.file_name()?.to_str()?;
    (snapshots.file_name()? == "snapshots" && name.starts_with("models--")).then_some(repository)
}
