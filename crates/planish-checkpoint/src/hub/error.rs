//! What can go wrong between the Hub and the cache, and what cures it.

use std::io;
use std::path::PathBuf;

/// Each message names the model, what was asked and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
#[expect(
    missing_docs,
    reason = "the messages are the documentation; the fields are what they name"
)]
pub enum HubError {
    #[error("{model}: no such file or folder, and not a Hub id (org/name)")]
    NotFoundLocally { model: String },
    #[error("{model} is a local path: a revision applies to Hub ids only")]
    RevisionOfLocal { model: String },
    #[error("{id} at revision {revision} is not in the cache {} and HF_HUB_OFFLINE is set: unset it once to download", cache.display())]
    Offline {
        id: String,
        revision: String,
        cache: PathBuf,
    },
    #[error("{id}: not a local path, and the Hub has no such model or it is private (HTTP {status}): {cure}")]
    NoSuchModel {
        id: String,
        status: u16,
        cure: &'static str,
    },
    #[error("{id}: access is restricted (HTTP {status}): accept its conditions on {endpoint}/{id} and set HF_TOKEN")]
    Gated { id: String, status: u16, endpoint: String },
    #[error("{id} has no revision {revision} (HTTP 404)")]
    NoSuchRevision { id: String, revision: String },
    #[error("{id} has no file {file} (HTTP 404)")]
    NoSuchFile { id: String, file: String },
    #[error(
        "{url}: too many requests (HTTP 429) after {tries} tries: wait a while, or set HF_TOKEN for a higher limit"
    )]
    RateLimited { url: String, tries: u32 },
    #[error("{url}: HTTP {status}")]
    Status { url: String, status: u16 },
    #[error("{url}: cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("{url}: expected {expected}, found {found}")]
    Protocol {
        url: String,
        expected: &'static str,
        found: String,
    },
    #[error("{url}: the connection broke after {received} of {expected} bytes: run again to resume")]
    Cut { url: String, received: u64, expected: u64 },
    #[error("{url}: expected {expected} bytes, found {found}: the partial file was removed, run again")]
    WrongSize { url: String, expected: u64, found: u64 },
    #[error("{url}: expected SHA-256 {expected}, found {found}: the file was removed, run again")]
    WrongHash {
        url: String,
        expected: String,
        found: String,
    },
    #[error("{id}: {what}")]
    Unusable { id: String, what: String },
    #[error("{}: {source}", path.display())]
    Cache { path: PathBuf, source: io::Error },
}

impl HubError {
    /// The network failed, rather than the Hub saying no.
    pub(super) fn is_unreachable(&self) -> bool {
        matches!(
            self,
            HubError::Unreachable { .. } | HubError::Status { status: 500.., .. }
        )
    }

    /// For `map_err` on what the file system answers about `path`.
    pub(super) fn cache(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> HubError {
        let path = path.into();
        move |source| HubError::Cache { path, source }
    }
}
