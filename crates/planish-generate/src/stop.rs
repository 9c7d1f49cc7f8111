//! Texts that end an answer: found across tokens, and not shown.

/// Looks for stop strings in a text that comes in pieces.
#[derive(Clone, Debug, Default)]
pub struct StopStrings {
    strings: Vec<String>,
    /// What may be the beginning of one.
    held: String,
    /// Which was found.
    found: Option<String>,
}

impl StopStrings {
    /// Empty strings stop nothing.
    pub fn new(strings: &[String]) -> StopStrings {
        StopStrings {
            strings: strings.iter().filter(|text| !text.is_empty()).cloned().collect(),
            ..StopStrings::default()
        }
    }

    /// Takes the next piece; returns what is certain not to belong to a stop string.
    pub fn push(&mut self, piece: &str) -> String {
        if self.found.is_some() {
            return String::new();
        }
        self.held.push_str(piece);
        let first = self
            .strings
            .iter()
            .filter_map(|stop| Some((self.held.find(stop.as_str())?, stop)))
            .min();
        if let Some((end, stop)) = first {
            self.found = Some(stop.clone());
            self.held.truncate(end);
            return std::mem::take(&mut self.held);
        }
        let begins = |start: &usize| {
            let rest = &self.held[*start..];
            self.strings.iter().any(|stop| stop.starts_with(rest))
        };
        let mut starts = self.held.char_indices().map(|(at, _)| at);
        let held_from = starts.find(begins).unwrap_or(self.held.len());
        let rest = self.held.split_off(held_from);
        std::mem::replace(&mut self.held, rest)
    }

    /// The end of the text: what was held back after all.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Whether a stop string was there.
    pub fn is_stopped(&self) -> bool {
        self.found.is_some()
    }

    /// The stop string that was there.
    pub fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// A whole text up to the first stop string.
    pub fn cut<'a>(&self, text: &'a str) -> &'a str {
        let first = self.strings.iter().filter_map(|stop| text.find(stop.as_str())).min();
        &text[..first.unwrap_or(text.len())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_strings_are_found_across_pieces_and_not_shown() {
        let stops = ["END".to_owned(), "\n\n".to_owned(), String::new()];
        let text = "one\ntwo ENDLESS";
        for size in 1..=text.len() {
            let mut found = StopStrings::new(&stops);
            let pieces = text
                .as_bytes()
                .chunks(size)
                .map(|piece| std::str::from_utf8(piece).unwrap());
            let shown: String = pieces.map(|piece| found.push(piece)).collect();
            assert_eq!((shown.as_str(), found.is_stopped()), ("one\ntwo ", true), "{size}");
            assert_eq!(found.found(), Some("END"));
        }
        let mut found = StopStrings::new(&stops);
        assert_eq!(found.push("EN"), "");
        assert_eq!(found.push("A é\n"), "ENA é");
        assert_eq!(found.finish(), "\n");
        assert!(!found.is_stopped());
        assert_eq!(found.cut("aENDbEND"), "a");
        assert_eq!(StopStrings::default().push("x"), "x");
    }
}
