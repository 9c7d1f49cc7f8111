//! What the answers of the Hub say, apart from how they come: pure functions of their bytes, and the checks that make them harmless.

use serde_json::Value;

use super::{HubError, RepoFile, select};

/// The files of a repository at one commit.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// 40 hexadecimal digits: it becomes the name of a folder.
    pub commit: String,
    /// As the Hub names them: not checked.
    pub files: Vec<String>,
}

impl Listing {
    /// Reads the answer of `api/models/{id}/revision/{revision}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(answer: &[u8]) -> Result<Listing, String> {
        let value: Value = serde_json::from_slice(answer).map_err(|error| error.to_string())?;
        let commit = value["sha"].as_str().filter(|sha| is_commit(sha));
        let siblings = value["siblings"].as_array();
        let (Some(commit), Some(siblings)) = (commit, siblings) else {
            return Err("no valid sha and siblings".into());
        };
        let names = siblings
            .iter()
            .filter_map(|file| file["rfilename"].as_str().map(str::to_owned));
        Ok(Listing {
            commit: commit.to_owned(),
            files: names.collect(),
        })
    }

    /// What is fetched of the repository `model` (`org/name` or `org/name/file.gguf`), without the shards that an index names. None
    /// of the names leads out of a folder.
    ///
    /// # Errors
    /// A name that leads out; nothing that planish reads; `model` is no name of the Hub.
    pub fn wanted(&self, model: &str) -> Result<Vec<String>, HubError> {
        let wanted = RepoFile::parse(model).ok_or_else(|| HubError::NotFoundLocally { model: model.into() })?;
        select::wanted_files(&wanted, &self.files)
    }

    /// The shards that the index of the repository names, all of them files of it.
    ///
    /// # Errors
    /// What is wrong with the index.
    pub fn shards(&self, index: &[u8]) -> Result<Vec<String>, String> {
        select::shards(index, &self.files)
    }
}

/// Name and size of a file's content.
#[derive(Clone, Debug, PartialEq)]
pub struct Content {
    /// What the file is called in the cache: letters, digits, `-` and `_`.
    pub etag: String,
    /// Bytes.
    pub size: u64,
    /// The etag is the SHA-256 of the content, as it is of large files.
    pub is_hash: bool,
}

impl Content {
    /// From the headers of an answer; those of the file behind a link go first. `None` if they do not say it.
    pub fn of_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Content> {
        let etag = header("x-linked-etag").or_else(|| header("etag")).map(clean_etag)?;
        let size = header("x-linked-size").or_else(|| header("content-length"))?;
        is_file_name(&etag).then_some(())?;
        Some(Content {
            is_hash: etag.len() == 64 && etag.bytes().all(|byte| byte.is_ascii_hexdigit()),
            etag,
            size: size.parse().ok()?,
        })
    }
}

/// Revisions become file names: only what git could have made is taken from the network or a file.
pub(super) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn clean_etag(etag: &str) -> String {
    etag.trim_start_matches("W/").trim_matches('"').to_owned()
}

/// An etag becomes a file name: nothing in it may lead elsewhere.
fn is_file_name(etag: &str) -> bool {
    !etag.is_empty()
        && etag.len() < 200
        && etag
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}
