//! A file that appears under its name only when it is whole: until then it is in a folder beside the target, locked and cleaned up as
//! those of outputs that are folders are.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::staging::{Folder, beside, make_folder, remove_leftovers, sync_folder};
use super::swap;
use crate::Error;

/// A file that is being written, removed when dropped.
pub(crate) struct StagedFile {
    file: File,
    path: PathBuf,
    target: PathBuf,
    force: bool,
    folder: Folder,
}

impl StagedFile {
    /// The target without links.
    ///
    /// # Errors
    /// A target that is there, unless it begins with `magic` and `force` is set.
    pub fn check(target: &Path, force: bool, magic: &[u8]) -> Result<PathBuf, Error> {
        match std::fs::symlink_metadata(target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(target.to_path_buf()),
            Err(error) => return Err(Error::io(target)(error)),
            Ok(_) => {}
        }
        let real = target.canonicalize().map_err(Error::io(target))?;
        if !real.is_file() {
            return Err(Error::output(target, "is no file; the output is one: give its name"));
        }
        if !force {
            return Err(Error::OutputExists {
                path: target.to_path_buf(),
            });
        }
        let mut begin = vec![0; magic.len()];
        let read = File::open(&real).and_then(|mut file| file.read_exact(&mut begin));
        match read {
            Ok(()) if begin == magic => Ok(real),
            _ => Err(Error::output(
                target,
                "is a file of another kind, so it is not replaced",
            )),
        }
    }

    /// Checks the target, removes what killed runs left, makes the file.
    ///
    /// # Errors
    /// As [`StagedFile::check`]; a folder that cannot be written.
    pub fn create(target: &Path, force: bool, magic: &[u8]) -> Result<StagedFile, Error> {
        let target = StagedFile::check(target, force, magic)?;
        let (parent, prefix) = beside(&target)?;
        std::fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
        remove_leftovers(&parent, &prefix);
        let folder = make_folder(&parent, &prefix).map_err(Error::io(&target))?;
        let path = folder.path().join("file");
        let file = File::create_new(&path).map_err(Error::io(&target))?;
        Ok(StagedFile {
            file,
            path,
            target,
            force,
            folder,
        })
    }

    /// To be written to.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file its name; on failure it is removed and the target is as it was.
    ///
    /// # Errors
    /// A target that came into being meanwhile, unless it may be replaced; what a rename says.
    pub fn publish(self) -> Result<(), Error> {
        self.file.sync_all().map_err(Error::io(&self.target))?;
        let renamed = match swap::rename_new(&self.path, &self.target) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && !self.force => {
                return Err(Error::OutputExists { path: self.target });
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => std::fs::rename(&self.path, &self.target),
            other => other,
        };
        renamed.map_err(Error::io(&self.target))?;
        if let Some(parent) = self.folder.path().parent() {
            sync_folder(parent);
        }
        Ok(())
    }
}
