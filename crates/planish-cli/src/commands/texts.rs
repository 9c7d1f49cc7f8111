//! Texts that the user names, as files or by standard input: read whole, up to a size that no text reaches which is meant.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use anyhow::Context;

/// Bytes of a text at most.
const MOST_BYTES: u64 = 512 << 20;

/// The text of a file.
///
/// # Errors
/// What stands in the way, with the file's name.
pub fn read_text(path: &Path) -> anyhow::Result<String> {
    text_of(path).with_context(|| path.display().to_string())
}

/// The same for whoever names the file.
pub fn text_of(path: &Path) -> io::Result<String> {
    read(File::open(path)?, MOST_BYTES)
}

/// What standard input says to its end; `what` it is, for the error.
pub fn read_standard_input(what: &'static str) -> anyhow::Result<String> {
    read(io::stdin().lock(), MOST_BYTES).context(what)
}

fn read(source: impl Read, most: u64) -> io::Result<String> {
    let mut text = String::new();
    source.take(most + 1).read_to_string(&mut text)?;
    match text.len() as u64 > most {
        true => Err(io::Error::other(format!(
            "expected at most {most} bytes of text, found more"
        ))),
        false => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn a_text_without_end_is_refused() {
        assert_eq!(read(&b"abc"[..], 3).unwrap(), "abc");
        let error = read(std::io::repeat(b'a'), 3).unwrap_err().to_string();
        assert_eq!(error, "expected at most 3 bytes of text, found more");
    }
}
