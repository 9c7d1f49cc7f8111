//! The keys of a section of config.json, with the messages for values that are not what they should be.

use std::path::Path;

use serde_json::{Map, Value};

use crate::Error;

/// A section of config.json and where it was found, for messages.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub file: &'a Path,
    pub key: &'a str,
    pub values: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    /// A key's value; `None` if it is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// Whether a key has a value.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// A key's non-negative integer; `None` if it is absent or null.
    pub fn integer(&self, key: &str) -> Result<Option<u64>, Error> {
        self.typed(key, "a positive integer", Value::as_u64)
    }

    /// A key's integer; `None` if it is absent or null.
    pub fn signed(&self, key: &str) -> Result<Option<i64>, Error> {
        self.typed(key, "an integer", Value::as_i64)
    }

    /// A key's boolean; `None` if it is absent or null.
    pub fn boolean(&self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", Value::as_bool)
    }

    /// A key's text; `None` if it is absent or null.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        self.typed(key, "a text", Value::as_str)
    }

    fn typed<T>(&self, key: &str, expected: &str, of: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>, Error> {
        let value = self.get(key);
        value
            .map(|value| of(value).ok_or_else(|| self.malformed(key, expected, value)))
            .transpose()
    }

    /// A value that is not what it should be.
    pub fn malformed(&self, key: &str, expected: &str, found: &Value) -> Error {
        malformed(self.file, &format!("{}.{key}", self.key), expected, found)
    }

    /// A value that is good and not read; `what` goes on after the key.
    pub fn unsupported(&self, key: &str, what: &str) -> Error {
        Error::unsupported(self.file, format!("`{}.{key}` {what}", self.key))
    }
}

pub(super) fn malformed(file: &Path, key: &str, expected: &str, found: &Value) -> Error {
    Error::malformed(file, format!("`{key}`: expected {expected}, found {found}"))
}
