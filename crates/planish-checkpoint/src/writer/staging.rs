//! The folder beside the target that a run writes to. Its name is `.TARGET.planish-RANDOM.part`; while the run lives it holds
//! a lock, so that the next run can tell what a killed one left behind.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::swap;
use crate::Error;

const SUFFIX: &str = ".part";

/// A temporary folder, removed when dropped.
pub(super) struct Staging {
    target: PathBuf,
    parent: PathBuf,
    force: bool,
    folder: TempDir,
    lock: Option<File>,
}

impl Staging {
    /// Checks the target, removes what killed runs left, makes the folder.
    pub fn create(target: &Path, force: bool) -> Result<Staging, Error> {
        let target = check_target(target, force)?;
        let name = target
            .file_name()
            .ok_or_else(|| Error::output(&target, "expected the name of a folder"))?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
            _ => PathBuf::from("."),
        };
        std::fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
        let prefix = prefix(name);
        remove_leftovers(&parent, &prefix);
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX);
        #[cfg(unix)]
        {
            // As any new folder: tempfile's own choice is private to the user, and the folder will be the result.
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o777));
        }
        let folder = builder.tempdir_in(&parent).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => Error::output(
                &target,
                format!("cannot be made: {} is not writable: {error}", parent.display()),
            ),
            _ => Error::io(&target)(error),
        })?;
        let lock = lock(folder.path());
        Ok(Staging {
            target,
            parent,
            force,
            folder,
            lock,
        })
    }

    /// The folder that will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The folder that is.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Gives the folder its name; on failure the folder is removed and the target is as it was.
    pub fn publish(self) -> Result<PathBuf, Error> {
        sync_folder(self.folder.path());
        check_target(&self.target, self.force)?;
        if self.target.exists() {
            swap::exchange(self.folder.path(), &self.target).map_err(Error::io(&self.target))?;
            // The folder now holds what was replaced; dropping it removes that.
        } else {
            std::fs::rename(self.folder.path(), &self.target).map_err(Error::io(&self.target))?;
            let _ = self.folder.keep();
        }
        drop(self.lock);
        sync_folder(&self.parent);
        Ok(self.target)
    }
}

/// The target without links, if it may be written.
fn check_target(target: &Path, force: bool) -> Result<PathBuf, Error> {
    match std::fs::symlink_metadata(target) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(target.to_path_buf()),
        Err(error) => return Err(Error::io(target)(error)),
        Ok(_) => {}
    }
    let real = target.canonicalize().map_err(Error::io(target))?;
    if !real.is_dir() {
        return Err(Error::output(target, "is a file; the output is a folder"));
    }
    if !force {
        return Err(Error::OutputExists {
            path: target.to_path_buf(),
        });
    }
    let mut items = std::fs::read_dir(&real).map_err(Error::io(target))?;
    if items.next().is_some() && !real.join("config.json").is_file() {
        return Err(Error::OutputNotAModel {
            path: target.to_path_buf(),
        });
    }
    Ok(real)
}

fn prefix(target_name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target_name);
    prefix.push(".planish-");
    prefix
}

/// Removes the folders of runs that are no longer alive. Failures are left alone: the folders are hidden and never read.
fn remove_leftovers(parent: &Path, prefix: &OsStr) {
    let Ok(items) = std::fs::read_dir(parent) else { return };
    for item in items.flatten() {
        let name = item.file_name();
        let name = name.as_encoded_bytes();
        let ours = name.starts_with(prefix.as_encoded_bytes()) && name.ends_with(SUFFIX.as_bytes());
        if ours && let Some(_held) = lock(&item.path()) {
            let _ = std::fs::remove_dir_all(item.path());
        }
    }
}

/// The lock of a folder; `None` if another process holds it, or where folders cannot be locked.
fn lock(folder: &Path) -> Option<File> {
    let file = File::open(folder).ok()?;
    file.try_lock().ok()?;
    Some(file)
}

/// Makes renames in a folder last through a power cut, where the system can.
fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
