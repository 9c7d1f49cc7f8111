//! The numbers that Python's json module writes and JSON does not have: `Infinity`, `-Infinity`, `NaN`. Older configs hold
//! them; transformers 5 writes `{"__float__": "Infinity"}` instead, which is what they become here.

const NAMES: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// The text with these numbers as objects; `None` if it has none of them.
pub(super) fn replace(text: &[u8]) -> Option<Vec<u8>> {
    let (mut replaced, mut at) = (Vec::new(), 0);
    let (mut in_string, mut found) = (false, false);
    while at < text.len() {
        // Few bytes begin one, and a file may have millions.
        let name = match text[at] {
            b'-' | b'I' | b'N' if !in_string => NAMES.iter().find(|name| text[at..].starts_with(name.as_bytes())),
            _ => None,
        };
        if let Some(name) = name {
            replaced.extend_from_slice(format!("{{\"__float__\": \"{name}\"}}").as_bytes());
            at += name.len();
            found = true;
            continue;
        }
        let escape = in_string && text[at] == b'\\' && at + 1 < text.len();
        in_string ^= text[at] == b'"';
        let taken = if escape { 2 } else { 1 };
        replaced.extend_from_slice(&text[at..at + taken]);
        at += taken;
    }
    found.then_some(replaced)
}

#[cfg(test)]
mod tests {
    use super::replace;

    #[test]
    fn only_what_stands_outside_of_texts() {
        let replaced = replace(br#"{"limit": [0.0, Infinity], "low": -Infinity, "a \" NaN": "Infinity \\", "x":NaN}"#);
        let expected = concat!(
            r#"{"limit": [0.0, {"__float__": "Infinity"}], "low": {"__float__": "-Infinity"}, "#,
            r#""a \" NaN": "Infinity \\", "x":{"__float__": "NaN"}}"#
        );
        assert_eq!(String::from_utf8(replaced.unwrap()).unwrap(), expected);
        assert_eq!(replace(br#"{"text": "NaN", "number": -1}"#), None);
        assert_eq!(replace(br#"{"open": "\"#), None);
    }
}
