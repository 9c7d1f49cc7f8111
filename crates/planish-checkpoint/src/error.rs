//! What can be wrong with a checkpoint, in words a user can act on.

use std::path::{Path, PathBuf};

use planish_format::memory::OutOfMemory;

/// Names the file, the tensor or key, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file, folder or tensor that should be there.
    #[error("{}: not found; {what}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
        /// Why it is needed, or what is there instead.
        what: String,
    },
    /// A file whose content contradicts its format, or another file.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The tensor or key, what was expected and what was found.
        what: String,
    },
    /// A file that was changed while it was read: what came of it may be half the one and half the other.
    #[error("{}: changed while it was read: {what}", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What is different.
        what: String,
    },
    /// A model that could not be fetched from the Hub.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
    /// A valid file that holds what planish does not read.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The method, type or mode, and what is read instead.
        what: String,
    },
    /// An output folder that is there already, where replacing it was not allowed.
    #[error("{}: exists already; give another folder", path.display())]
    OutputExists {
        /// The output folder.
        path: PathBuf,
    },
    /// An output folder that is there already and holds something else than a model: it is never replaced.
    #[error("{}: exists and does not look like a model (no config.json), so it is not replaced", path.display())]
    OutputNotAModel {
        /// The output folder.
        path: PathBuf,
    },
    /// An unfinished output of a run that differs from the one that is to go on with it.
    #[error("{}: cannot go on with what an earlier run left: {what}", path.display())]
    OtherRun {
        /// The output folder.
        path: PathBuf,
        /// What is different.
        what: String,
    },
    /// An output that cannot be written.
    #[error("{}: {what}", path.display())]
    Output {
        /// The output folder.
        path: PathBuf,
        /// What stands in the way.
        what: String,
    },
    /// A tensor that does not fit in memory as it has to be rearranged.
    #[error(transparent)]
    Memory(#[from] OutOfMemory),
}

impl Error {
    /// For `map_err`: an I/O error of `path`.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    }

    pub(crate) fn missing(path: &Path, what: impl Into<String>) -> Error {
        Error::Missing {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    pub(crate) fn malformed(path: &Path, what: impl Into<String>) -> Error {
        Error::Malformed {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    pub(crate) fn changed(path: &Path, what: impl Into<String>) -> Error {
        Error::Changed {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Error {
        Error::Unsupported {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }

    pub(crate) fn output(path: &Path, what: impl Into<String>) -> Error {
        Error::Output {
            path: path.to_path_buf(),
            what: what.into(),
        }
    }
}
