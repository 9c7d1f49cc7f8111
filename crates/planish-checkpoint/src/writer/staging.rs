//! The folder beside the target that a run writes to. Its name is `.TARGET.planish-RANDOM.part`, and whoever has it under that
//! name holds its lock, so that another run can tell what a killed one left behind: the folder is made under a name of its own,
//! locked, and renamed. Among runs to one target the last to publish finds out what the others did.

use std::ffi::{OsStr, OsString};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::swap;
use crate::Error;

const SUFFIX: &str = ".part";

/// How a folder is called until it is locked; it is empty.
const UNLOCKED: &str = ".new";

/// How often others may be in the way.
const TRIES: usize = 16;

/// A temporary folder, removed when dropped.
pub(super) struct Staging {
    target: PathBuf,
    parent: PathBuf,
    force: bool,
    folder: Folder,
}

/// A folder that is ours until it is published.
pub(super) struct Folder {
    path: PathBuf,
    published: bool,
    /// It stays when the run ends before it is published.
    kept: bool,
    _lock: Option<File>,
}

impl Folder {
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if !self.published && !self.kept {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

impl Staging {
    /// Checks the target, removes what killed runs left, makes the folder.
    pub fn create(target: &Path, force: bool) -> Result<Staging, Error> {
        let (target, parent, prefix) = place(target, force)?;
        std::fs::create_dir_all(&parent).map_err(Error::io(&parent))?;
        remove_leftovers(&parent, &prefix);
        let folder = make_folder(&parent, &prefix).map_err(|error| match error.kind() {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Error::output(
                &target,
                format!("cannot be made: {} is not writable: {error}", parent.display()),
            ),
            _ => Error::io(&target)(error),
        })?;
        Ok(Staging {
            target,
            parent,
            force,
            folder,
        })
    }

    /// What runs to this target left that are no longer alive.
    ///
    /// # Errors
    /// A target that may not be written; a run to it that is alive.
    pub fn unfinished(target: &Path, force: bool) -> Result<Vec<Staging>, Error> {
        let (target, parent, prefix) = place(target, force)?;
        let mut unfinished = Vec::new();
        for path in leftovers(&parent, &prefix, SUFFIX) {
            let folder = match lock(&path) {
                Ok(lock) => Folder {
                    path,
                    published: false,
                    kept: true,
                    _lock: lock,
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::output(&target, "another run is writing it now"));
                }
                Err(_) => continue,
            };
            unfinished.push(Staging {
                target: target.clone(),
                parent: parent.clone(),
                force,
                folder,
            });
        }
        Ok(unfinished)
    }

    /// Whether the folder stays when the run ends before it is published.
    pub fn keep(&mut self, kept: bool) {
        self.folder.kept = kept;
    }

    /// The folder that will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// The folder that is.
    pub fn folder(&self) -> &Path {
        &self.folder.path
    }

    /// Gives the folder its name; on failure the folder is removed and the target is as it was.
    pub fn publish(mut self) -> Result<PathBuf, Error> {
        self.folder.kept = false;
        sync_folder(&self.folder.path);
        for _ in 0..TRIES {
            check_target(&self.target, self.force)?;
            let path = &self.folder.path;
            match swap::rename_new(path, &self.target) {
                Ok(()) => {
                    self.folder.published = true;
                    sync_folder(&self.parent);
                    return Ok(self.target);
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Error::io(&self.target)(error)),
            }
            // It is there and may be replaced, unless it went away or became another since it was looked at.
            check_target(&self.target, self.force)?;
            match swap::exchange(path, &self.target) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::io(&self.target)(error)),
                Ok(()) if !is_replaceable(path).unwrap_or(true) => {
                    swap::exchange(path, &self.target).map_err(Error::io(&self.target))?;
                }
                // The folder now holds what was replaced; dropping it removes that.
                Ok(()) => {
                    sync_folder(&self.parent);
                    return Ok(self.target);
                }
            }
        }
        Err(Error::output(&self.target, "others replace it again and again"))
    }
}

/// A new folder that is locked.
pub(super) fn make_folder(parent: &Path, prefix: &OsStr) -> io::Result<Folder> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).suffix(UNLOCKED);
    #[cfg(unix)]
    {
        // As any new folder: tempfile's own choice is private to the user, and the folder will be the result.
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o777));
    }
    let mut failure = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..TRIES {
        let unlocked = builder.tempdir_in(parent)?;
        let path = unlocked.path().with_extension(&SUFFIX[1..]);
        // Another run may take it for what a killed one left, until it has its name.
        match lock(unlocked.path()).and_then(|lock| std::fs::rename(unlocked.path(), &path).map(|()| lock)) {
            Ok(lock) => {
                let _ = unlocked.keep();
                return Ok(Folder {
                    path,
                    published: false,
                    kept: false,
                    _lock: lock,
                });
            }
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// The target without links, if it may be written.
pub(super) fn check_target(target: &Path, force: bool) -> Result<PathBuf, Error> {
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
    match is_replaceable(&real).map_err(Error::io(target))? {
        true => Ok(real),
        false => Err(Error::OutputNotAModel {
            path: target.to_path_buf(),
        }),
    }
}

/// Whether a folder is empty or looks like a model.
fn is_replaceable(folder: &Path) -> io::Result<bool> {
    let is_empty = std::fs::read_dir(folder)?.next().is_none();
    Ok(is_empty || folder.join("config.json").is_file())
}

fn prefix(target_name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(target_name);
    prefix.push(".planish-");
    prefix
}

/// The target without links, the folder that it is in, and how unfinished folders beside it begin.
fn place(target: &Path, force: bool) -> Result<(PathBuf, PathBuf, OsString), Error> {
    let target = check_target(target, force)?;
    let (parent, prefix) = beside(&target)?;
    Ok((target, parent, prefix))
}

/// The folder that a target is in, and how unfinished folders beside it begin.
pub(super) fn beside(target: &Path) -> Result<(PathBuf, OsString), Error> {
    let name = target
        .file_name()
        .ok_or_else(|| Error::output(target, "expected a name at its end"))?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_path_buf(),
        _ => PathBuf::from("."),
    };
    Ok((parent, prefix(name)))
}

/// Whether a run to this target left a folder with a file of this name.
pub(super) fn left_behind(target: &Path, file: &str) -> bool {
    place(target, true).is_ok_and(|(_, parent, prefix)| {
        let mut folders = leftovers(&parent, &prefix, SUFFIX).into_iter();
        folders.any(|folder| folder.join(file).is_file())
    })
}

/// The unfinished folders whose names begin and end so.
fn leftovers(parent: &Path, prefix: &OsStr, suffix: &str) -> Vec<PathBuf> {
    let Ok(items) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let is_ours = |name: &OsStr| {
        let rest = name.as_encoded_bytes().strip_prefix(prefix.as_encoded_bytes());
        rest.is_some_and(|rest| rest.ends_with(suffix.as_bytes()))
    };
    let items = items.flatten().filter(|item| is_ours(&item.file_name()));
    items.map(|item| item.path()).collect()
}

/// Removes the folders of runs that are no longer alive. Failures are left alone: the folders are hidden and never read.
pub(super) fn remove_leftovers(parent: &Path, prefix: &OsStr) {
    for unlocked in leftovers(parent, prefix, UNLOCKED) {
        // Empty, or not ours. A run that is just making it makes another.
        let _ = std::fs::remove_dir(unlocked);
    }
    for folder in leftovers(parent, prefix, SUFFIX) {
        if let Ok(Some(_held)) = lock(&folder) {
            let _ = std::fs::remove_dir_all(&folder);
        }
    }
}

/// The lock of a folder; `None` where folders cannot be locked.
///
/// # Errors
/// Another process holds it, or there is no such folder.
fn lock(folder: &Path) -> io::Result<Option<File>> {
    let file = match File::open(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        Err(_) => return Ok(None),
        Ok(file) => file,
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// Makes renames in a folder last through a power cut, where the system can.
pub(super) fn sync_folder(folder: &Path) {
    if let Ok(folder) = File::open(folder) {
        let _ = folder.sync_all();
    }
}
