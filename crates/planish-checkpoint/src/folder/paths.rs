//! Names of files in a model folder, kept inside it: no `..`, no absolute names, no links that leave.
//!
//! A folder of the Hub cache (`models--ORG--NAME/snapshots/REVISION`) is made of links to `models--ORG--NAME/blobs`; there
//! the links may lead anywhere within `models--ORG--NAME`.

use std::path::{Component, Path, PathBuf};

use crate::Error;

/// A model folder and the folder that its links may not leave.
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

    /// For messages: not checked.
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The path of a file of this folder; `None` if there is none.
    pub fn resolve(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        let path = self.folder.join(name);
        if !is_inside(name) {
            return Err(Error::malformed(
                &self.folder,
                format!("`{name}` is not the name of a file in this folder"),
            ));
        }
        let real = match path.canonicalize() {
            Ok(real) => real,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path)(error)),
        };
        if !real.starts_with(&self.boundary) {
            let what = format!(
                "expected a file in this folder, found a link to {}, which is outside",
                real.display()
            );
            return Err(Error::malformed(&path, what));
        }
        Ok(Some(path))
    }
}

/// Whether a name has only plain parts, so that it stays in the folder it is joined to.
pub(crate) fn is_inside(name: &str) -> bool {
    !name.is_empty()
        && Path::new(name)
            .components()
            .all(|part| matches!(part, Component::Normal(_)))
}

/// `models--ORG--NAME` of a path `models--ORG--NAME/snapshots/REVISION`.
fn hub_repository(folder: &Path) -> Option<&Path> {
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?;
    let name = repository.file_name()?.to_str()?;
    (snapshots.file_name()? == "snapshots" && name.starts_with("models--")).then_some(repository)
}
