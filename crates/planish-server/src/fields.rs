//! The fields of a request, taken one by one: each is understood or refused by its name, and what is left over is told.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use crate::error::ApiError;

/// A JSON object whose fields are taken out.
pub(crate) struct Fields {
    rest: Map<String, Value>,
}

impl Fields {
    /// # Errors
    /// What is no JSON object, with line and column.
    pub(crate) fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        let bad = |message: String| ApiError::new(axum::http::StatusCode::BAD_REQUEST, message);
        match serde_json::from_slice(body) {
            Ok(Value::Object(rest)) => Ok(Fields { rest }),
            Ok(other) => Err(bad(format!("the body is {}, expected an object", kind(&other)))),
            Err(error) => Err(bad(format!("the body is no JSON: {error}"))),
        }
    }

    /// Fields that were translated.
    pub(crate) fn new(rest: Map<String, Value>) -> Fields {
        Fields { rest }
    }

    /// A field that is there and not null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.rest.shift_remove(name).filter(|value| !value.is_null())
    }

    fn of<T>(
        &mut self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let read = read(&value);
        read.map(Some)
            .ok_or_else(|| ApiError::field(name, format!("{name} is {}, expected {expected}", shown(&value))))
    }

    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f64>) -> Result<Option<f32>, ApiError> {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.of(name, &expected, |value| {
            value
                .as_f64()
                .filter(|number| range.contains(number))
                .map(|number| number as f32)
        })
    }

    pub(crate) fn count(&mut self, name: &str, range: RangeInclusive<u64>) -> Result<Option<usize>, ApiError> {
        let expected = match *range.end() {
            u64::MAX => format!("a whole number of at least {}", range.start()),
            most => format!("a whole number from {} to {most}", range.start()),
        };
        self.of(name, &expected, |value| {
            let number = value.as_u64().filter(|number| range.contains(number))?;
            usize::try_from(number).ok()
        })
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.of(name, "true or false", Value::as_bool)
    }

    pub(crate) fn text(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.of(name, "a text", |value| value.as_str().map(str::to_owned))
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        self.of(name, "an object", |value| value.as_object().cloned())
    }

    /// Any whole number; a negative one counts down from 2^64.
    pub(crate) fn seed(&mut self, name: &str) -> Result<Option<u64>, ApiError> {
        self.of(name, "a whole number", |value| {
            value.as_u64().or_else(|| value.as_i64().map(|number| number as u64))
        })
    }

    /// A text or a list of texts.
    pub(crate) fn texts(&mut self, name: &str, most: usize) -> Result<Option<Vec<String>>, ApiError> {
        self.of(name, &format!("a text or a list of at most {most} texts"), |value| {
            let texts: Vec<String> = match value {
                Value::String(text) => vec![text.clone()],
                Value::Array(list) => list
                    .iter()
                    .map(|text| text.as_str().map(str::to_owned))
                    .collect::<Option<_>>()?,
                _ => return None,
            };
            (texts.len() <= most).then_some(texts)
        })
    }

    /// Refuses a field that is not supported, unless it says what happens without it.
    pub(crate) fn refuse(&mut self, name: &str, idle: &[Value]) -> Result<(), ApiError> {
        match self.take(name) {
            Some(value) if !idle.contains(&value) => Err(ApiError::unsupported(name)),
            _ => Ok(()),
        }
    }

    /// Names of the fields that nobody took.
    pub(crate) fn names_left(&self) -> Vec<String> {
        self.rest.keys().cloned().collect()
    }
}

/// What a value is, for errors.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A short value as it is, else what it is.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.len() {
        0..=40 => text,
        _ => kind(value).to_owned(),
    }
}
