//! What the answers of the Hub say, apart from how they come: pure functions of their bytes, and the checks that make them harmless.

use serde_json::Value;

/// The files of a repository at one commit.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Listing {
    /// 40 hexadecimal digits: it becomes the name of a folder.
    pub(super) commit: String,
    /// As the Hub names them: not checked.
    pub(super) files: Vec<String>,
}

impl Listing {
    /// Reads the answer of `api/models/{id}/revision/{revision}`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(answer: &[u8]) -> Result<Listing, String> {
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
}

/// Name and size of a file's content.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Content {
    /// What the file is called in the cache: letters, digits, `-` and `_`.
    pub(super) etag: String,
    /// Bytes.
    pub(super) size: u64,
    /// The etag is the SHA-256 of the content, as it is of large files.
    pub(super) is_hash: bool,
}

impl Content {
    /// From the headers of an answer; those of the file behind a link go first. `None` if they do not say it.
    pub(super) fn of_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> Option<Content> {
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
