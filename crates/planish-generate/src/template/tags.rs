//! Where the tags of a template stand in its source: what is rewritten there is code, and nothing else is.

use std::ops::Range;

/// The insides of `{{ .. }}` and `{% .. %}`, in order, without those of raw blocks.
pub(super) fn insides(source: &str) -> Vec<Range<usize>> {
    let bytes = source.as_bytes();
    let mut found = Vec::new();
    let mut at = 0;
    let mut raw = false;
    while at < bytes.len() {
        let rest = &bytes[at..];
        if rest.starts_with(b"{#") && !raw {
            at = find(bytes, at, b"#}");
        } else if rest.starts_with(b"{%") {
            let word = after_sign(&rest[2..]);
            raw = word.starts_with(b"raw") || (raw && !word.starts_with(b"endraw"));
            at += 2;
            if !raw {
                let end = end_of(bytes, at, b"%}");
                found.push(at..end);
                at = end;
            }
        } else if rest.starts_with(b"{{") && !raw {
            let end = end_of(bytes, at + 2, b"}}");
            found.push(at + 2..end);
            at = end;
        } else {
            at += 1;
        }
    }
    found
}

/// What follows the sign and the space that a tag may begin with.
pub(super) fn after_sign(inside: &[u8]) -> &[u8] {
    inside.strip_prefix(b"-").unwrap_or(inside).trim_ascii_start()
}

/// The place of the tag's end, else of the source's.
fn end_of(bytes: &[u8], from: usize, end: &[u8]) -> usize {
    let (mut at, mut depth) = (from, 0usize);
    while at < bytes.len() {
        match bytes[at] {
            _ if depth == 0 && bytes[at..].starts_with(end) => return at,
            b'\'' | b'"' => {
                at = after_text(bytes, at);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> usize {
    let found = bytes[from..].windows(what.len()).position(|window| window == what);
    found.map_or(bytes.len(), |at| from + at + what.len())
}

/// The place after the text literal that begins at `from`.
pub(super) fn after_text(bytes: &[u8], from: usize) -> usize {
    let quote = bytes[from];
    let mut at = from + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The place after the brackets that open at `from`.
pub(super) fn after_brackets(bytes: &[u8], from: usize) -> Option<usize> {
    let (mut depth, mut at) = (0usize, from);
    while at < bytes.len() {
        match bytes[at] {
            b'\'' | b'"' => {
                at = after_text(bytes, at);
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

/// The place after the word that begins at `from`; `from` where none does.
pub(super) fn after_word(bytes: &[u8], from: usize) -> usize {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_' || **byte >= 0x80;
    from + bytes[from..].iter().take_while(is_part).count()
}

#[cfg(test)]
mod tests {
    use super::insides;

    #[test]
    fn code_is_found_and_nothing_else() {
        let source = "a {# {{ x }} #}{{ {'a': {'b': 1}}.a }}{%- if '%}' %}{% raw %}{{ y }}{% endraw %}{{ '}}' }}{{ z";
        let found: Vec<&str> = insides(source).into_iter().map(|inside| &source[inside]).collect();
        assert_eq!(found, [" {'a': {'b': 1}}.a ", "- if '%}' ", " endraw ", " '}}' ", " z"]);
    }
}
