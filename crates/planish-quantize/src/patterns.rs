//! Module names against the patterns of `modules_to_not_convert`, with the matching rules of transformers 5.23.
//!
//! A pattern matches a module's full name when it is a suffix of it, or when it matches as a regular expression from the start
//! up to a module boundary: `layers.1` matches `layers.1.attn` and not `layers.11.attn`.

use fancy_regex::Regex;

use crate::Error;

/// A compiled list of patterns.
#[derive(Clone, Debug, Default)]
pub struct Patterns {
    patterns: Vec<(String, Regex)>,
}

impl Patterns {
    /// Compiles `patterns`.
    ///
    /// # Errors
    /// [`Error::Pattern`] for one that is not a regular expression (transformers refuses it as well).
    pub fn new<T: AsRef<str>>(patterns: impl IntoIterator<Item = T>) -> Result<Patterns, Error> {
        let compile = |pattern: T| -> Result<(String, Regex), Error> {
            let pattern = pattern.as_ref();
            let bounded = format!(r"\A(?:{pattern})(?:(?<=\.)|(?=\.|$))");
            let regex = Regex::new(&bounded).map_err(|error| Error::Pattern {
                pattern: pattern.to_owned(),
                what: error.to_string(),
            })?;
            Ok((pattern.to_owned(), regex))
        };
        Ok(Patterns {
            patterns: patterns.into_iter().map(compile).collect::<Result<_, _>>()?,
        })
    }

    /// Whether any pattern matches the module called `name`.
    pub fn matches(&self, name: &str) -> bool {
        // An expression that exceeds the engine's backtracking limit is taken as no match.
        self.patterns
            .iter()
            .any(|(text, regex)| name.ends_with(text) || regex.is_match(name).unwrap_or(false))
    }
}
