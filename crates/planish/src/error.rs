//! The errors of the library's front door: those of the layers below, and of a configuration.

/// What went wrong, in words a user can act on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be fetched.
    #[error(transparent)]
    Hub(#[from] planish_checkpoint::hub::HubError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] planish_checkpoint::Error),
    /// The model cannot be built or run.
    #[error(transparent)]
    Model(#[from] planish_model::Error),
    /// Text, tokens or sampling.
    #[error(transparent)]
    Generate(#[from] planish_generate::Error),
    /// A configuration with a value that is not allowed.
    #[error("{key} is {found}, expected {expected}")]
    Config {
        /// The key.
        key: String,
        /// The value it has.
        found: String,
        /// The values it may have.
        expected: &'static str,
    },
}

impl Error {
    pub(crate) fn config(key: &str, found: impl std::fmt::Display, expected: &'static str) -> Error {
        Error::Config {
            key: key.to_owned(),
            found: found.to_string(),
            expected,
        }
    }
}
