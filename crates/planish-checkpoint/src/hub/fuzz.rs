//! What the client makes of answers, for `fuzz/`.

use super::answers::{Content, Listing, is_commit};
use super::{RepoFile, select};

/// Reads a model's name, the listing, headers (`name: value`, a line each) and an index, as a fetch does.
///
/// # Panics
/// If a name that becomes a path could lead out of its folder.
pub fn answers(model: &str, listing: &[u8], headers: &str, index: &[u8]) {
    let header = |name: &str| {
        let mut lines = headers.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    if let Some(content) = Content::of_headers(header) {
        assert!(select::is_safe(&content.etag), "{:?}", content.etag);
    }
    let (Some(wanted), Ok(listing)) = (RepoFile::parse(model), Listing::parse(listing)) else {
        return;
    };
    assert!(is_commit(&listing.commit));
    assert!(wanted.id.split('/').count() <= 2 && select::is_safe(&wanted.id));
    let Ok(files) = select::wanted_files(&wanted, &listing.files) else {
        return;
    };
    let shards = match wanted.file {
        Some(_) => Vec::new(),
        None => select::shards(index, &listing.files).unwrap_or_default(),
    };
    for file in files.iter().chain(&shards) {
        assert!(select::is_safe(file), "{file:?}");
    }
    select::gguf_of(&files);
}
