//! Typed access to config.json with errors that name the key, what was expected and what is there.

use serde_json::{Map, Value};

use crate::Error;

/// A JSON object and where it stands in config.json.
#[derive(Clone, Copy)]
pub(crate) struct Config<'a> {
    map: &'a Map<String, Value>,
    path: &'a str,
}

impl<'a> Config<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Config<'a> {
        Config { map, path: "" }
    }

    /// The value of a key; `null` counts as absent, as in Python configs.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn error(&self, key: &str, expected: &str) -> Error {
        let key_path = if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        };
        let found = self.value(key).map_or("nothing".to_owned(), Value::to_string);
        Error::Config {
            key: key_path,
            expected: expected.to_owned(),
            found,
        }
    }

    /// A whole number of at least 1.
    pub(crate) fn count(&self, key: &str) -> Result<usize, Error> {
        self.optional_count(key)?
            .ok_or_else(|| self.error(key, "a positive whole number"))
    }

    pub(crate) fn optional_count(&self, key: &str) -> Result<Option<usize>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        // Some configs write 8192.0.
        let whole = value.as_u64().or_else(|| {
            value
                .as_f64()
                .filter(|x| x.fract() == 0.0 && *x > 0.0)
                .map(|x| x as u64)
        });
        match whole {
            // Far above any model, and low enough that products of two sizes cannot overflow.
            Some(count) if (1..=1 << 31).contains(&count) => Ok(Some(count as usize)),
            _ => Err(self.error(key, "a positive whole number")),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Result<f64, Error> {
        self.optional_number(key)?.ok_or_else(|| self.error(key, "a number"))
    }

    pub(crate) fn optional_number(&self, key: &str) -> Result<Option<f64>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.error(key, "a number"))
    }

    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, Error> {
        let Some(value) = self.value(key) else {
            return Ok(default);
        };
        value.as_bool().ok_or_else(|| self.error(key, "true or false"))
    }

    pub(crate) fn optional_text(&self, key: &str) -> Result<Option<&'a str>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.error(key, "a text"))
    }

    pub(crate) fn object(&self, key: &'a str) -> Result<Option<Config<'a>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.error(key, "an object"))?;
        Ok(Some(Config { map, path: key }))
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts = value
            .as_array()
            .and_then(|values| values.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts.map(Some).ok_or_else(|| self.error(key, "a list of texts"))
    }
}
