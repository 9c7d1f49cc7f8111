//! Typed access to config.json with errors that name the key, what was expected and what is there.

use serde_json::{Map, Value};

use crate::Error;

/// A JSON object and where it stands in config.json.
#[derive(Clone, Copy)]
pub(crate) struct Config<'a> {
    map: &'a Map<String, Value>,
    /// What a family takes where a key is absent.
    defaults: Option<&'a Map<String, Value>>,
    /// Keys that lead here, outermost first; empty ones are not used.
    path: [&'a str; 3],
    /// Layers that a model may have: each is built before a tensor of it is looked for.
    most_layers: usize,
}

/// Far more layers than any model has.
const MOST_LAYERS: usize = 4096;
/// Far above any size of a model, and low enough that products of two sizes cannot overflow.
const MOST_COUNT: u64 = 1 << 31;

impl<'a> Config<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Config<'a> {
        Config {
            map,
            defaults: None,
            path: [""; 3],
            most_layers: MOST_LAYERS,
        }
    }

    /// The same for a checkpoint with tensors of so many layers.
    pub(crate) fn with_layers(self, present: usize) -> Config<'a> {
        Config {
            most_layers: self.most_layers.min(present),
            ..self
        }
    }

    /// The same with the defaults of a family's configuration class, an object. A key that is there with `null` keeps it.
    pub(crate) fn with_defaults(self, defaults: &'a Value) -> Config<'a> {
        Config {
            defaults: defaults.as_object(),
            ..self
        }
    }

    /// Whether the family's configuration class knows a key that has a default.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.defaults.is_some_and(|defaults| defaults.contains_key(key))
    }

    /// The value of a key; `null` is none, as in Python configs.
    pub(crate) fn value(&self, key: &str) -> Option<&'a Value> {
        let default = || self.defaults.and_then(|defaults| defaults.get(key));
        self.map.get(key).or_else(default).filter(|value| !value.is_null())
    }

    /// The key, dotted where nested.
    fn key_path(&self, key: &str) -> String {
        let path = self.path.into_iter().filter(|part| !part.is_empty());
        path.chain([key]).collect::<Vec<&str>>().join(".")
    }

    pub(crate) fn error(&self, key: &str, expected: &str) -> Error {
        let found = self.value(key).map_or("nothing".to_owned(), Value::to_string);
        Error::Config {
            key: self.key_path(key),
            expected: expected.to_owned(),
            found,
        }
    }

    /// A whole number of at least 1.
    pub(crate) fn count(&self, key: &str) -> Result<usize, Error> {
        self.optional_count(key)?
            .ok_or_else(|| self.error(key, "a positive whole number"))
    }

    /// The number of layers.
    pub(crate) fn layers(&self, key: &str) -> Result<usize, Error> {
        let layers = self.count(key)?;
        match self.most_layers {
            most if layers <= most => Ok(layers),
            MOST_LAYERS => Err(self.error(key, &format!("at most {MOST_LAYERS} layers"))),
            present => Err(Error::Layers {
                key: self.key_path(key),
                present,
                found: layers,
            }),
        }
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
            Some(count) if (1..=MOST_COUNT).contains(&count) => Ok(Some(count as usize)),
            _ => Err(self.error(key, "a positive whole number")),
        }
    }

    /// A whole number that may be 0.
    pub(crate) fn whole(&self, key: &str, default: usize) -> Result<usize, Error> {
        match self.optional_number(key)? {
            None => Ok(default),
            Some(number) if (0.0..=MOST_COUNT as f64).contains(&number) && number.fract() == 0.0 => Ok(number as usize),
            Some(_) => Err(self.error(key, "a whole number")),
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

    /// Errors within name the key of this object only.
    pub(crate) fn object(&self, key: &'a str) -> Result<Option<Config<'a>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.error(key, "an object"))?;
        let mut path = self.path;
        if let Some(free) = path.iter_mut().find(|part| part.is_empty()) {
            *free = key;
        }
        Ok(Some(Config {
            map,
            defaults: None,
            path,
            ..*self
        }))
    }

    /// A list of numbers; infinity is written as transformers does, which JSON cannot.
    pub(crate) fn numbers(&self, key: &str) -> Result<Option<Vec<f64>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let number = |value: &Value| match value.get("__float__").and_then(Value::as_str) {
            Some("Infinity") => Some(f64::INFINITY),
            _ => value.as_f64(),
        };
        let numbers = value
            .as_array()
            .and_then(|values| values.iter().map(number).collect::<Option<Vec<_>>>());
        numbers.map(Some).ok_or_else(|| self.error(key, "a list of numbers"))
    }

    pub(crate) fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>, Error> {
        let Some(value) = self.value(key) else { return Ok(None) };
        let texts = value
            .as_array()
            .and_then(|values| values.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        texts.map(Some).ok_or_else(|| self.error(key, "a list of texts"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn absent_keys_take_defaults_and_null_ones_do_not() {
        let values = json!({"cap": null, "size": 3, "inner": {"deep": {"wrong": "text"}}});
        let defaults = json!({"cap": 50.0, "size": 7, "scale": 0.5, "tied": true});
        let config = Config::new(values.as_object().unwrap()).with_defaults(&defaults);
        assert_eq!(config.optional_number("cap").unwrap(), None);
        assert_eq!(config.count("size").unwrap(), 3);
        assert_eq!(config.number("scale").unwrap(), 0.5);
        assert!(config.flag("tied", false).unwrap());
        let deep = config
            .object("inner")
            .unwrap()
            .unwrap()
            .object("deep")
            .unwrap()
            .unwrap();
        let message = deep.number("wrong").unwrap_err().to_string();
        assert!(message.contains("inner.deep.wrong"), "{message}");
        assert!(deep.value("size").is_none());
    }
}
