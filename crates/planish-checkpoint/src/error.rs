//! What can be wrong with a checkpoint, in words a user can act on.

/// Names the file, the tensor or key, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file whose content contradicts its format.
    #[error("{path}: {what}")]
    Malformed {
        /// The file.
        path: std::path::PathBuf,
        /// The tensor or key, what was expected and what was found.
        what: String,
    },
    /// A model that could not be fetched from the Hub.
    #[error(transparent)]
    Hub(#[from] crate::hub::HubError),
}
