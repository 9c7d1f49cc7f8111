//! Python's ways that templates count on: methods of texts, lists and mappings (most come from minijinja-contrib), lenient
//! conversions, and how numbers are written.

use minijinja::value::{Tuple, Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};

/// Calls `value.name(args)`.
pub(super) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    if let (ValueKind::String, Some(text)) = (value.kind(), value.as_str()) {
        match name {
            "removeprefix" => {
                let (prefix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_prefix(prefix).unwrap_or(text)));
            }
            "removesuffix" => {
                let (suffix,): (&str,) = from_args(args)?;
                return Ok(Value::from(text.strip_suffix(suffix).unwrap_or(text)));
            }
            "rsplit" => return reverse_split(text, args),
            "partition" => {
                let (separator,): (&str,) = from_args(args)?;
                let (before, after) = text.split_once(separator).unwrap_or((text, ""));
                let found = if text.contains(separator) { separator } else { "" };
                return Ok(Value::from(Tuple::from([before, found, after].map(Value::from))));
            }
            "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                let (before, after) = text.rsplit_once(separator).unwrap_or(("", text));
                let found = if text.contains(separator) { separator } else { "" };
                return Ok(Value::from(Tuple::from([before, found, after].map(Value::from))));
            }
            _ => {}
        }
    }
    if value.kind() == ValueKind::Seq && name == "index" {
        let (wanted,): (&Value,) = from_args(args)?;
        let position = value.try_iter()?.position(|item| item == *wanted);
        return position
            .map(Value::from)
            .ok_or_else(|| Error::new(ErrorKind::InvalidOperation, format!("{wanted:?} is not in the list")));
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The `int` filter: 0, or the default, for what is no number.
pub(super) fn int(value: &Value, default: Option<i64>) -> Value {
    let default = default.unwrap_or(0);
    match value.as_str() {
        Some(text) => {
            let text = text.trim();
            let whole = text
                .parse()
                .or_else(|_| text.parse::<f64>().map(|number| number as i64));
            Value::from(whole.unwrap_or(default))
        }
        None if value.is_integer() => value.clone(),
        None if value.kind() == ValueKind::Bool => Value::from(i64::from(value.is_true())),
        None => Value::from(f64::try_from(value.clone()).map_or(default, |number| number as i64)),
    }
}

/// The `float` filter: 0.0, or the default, for what is no number.
pub(super) fn float(value: &Value, default: Option<f64>) -> f64 {
    let number = match value.as_str() {
        Some(text) => text.trim().parse().ok(),
        None => f64::try_from(value.clone()).ok(),
    };
    number.or(default).unwrap_or(0.0)
}

/// The shortest text that reads back as the same number, with an exponent below 1e-4 and from 1e16 on, as Python's `repr`.
pub(super) fn float_text(number: f64) -> String {
    let size = number.abs();
    if !number.is_finite() || size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{number:?}").to_lowercase();
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `rsplit(separator, most)`: at most so many cuts, from the end.
fn reverse_split(text: &str, args: &[Value]) -> Result<Value, Error> {
    let (separator, most): (Option<&str>, Option<i64>) = from_args(args)?;
    let pieces = usize::try_from(most.unwrap_or(-1)).map_or(usize::MAX, |cuts| cuts.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(pieces, separator).collect(),
        None if pieces == usize::MAX => text.split_whitespace().rev().collect(),
        None => text.trim_end().rsplitn(pieces, char::is_whitespace).collect(),
    };
    parts.reverse();
    Ok(parts.into_iter().map(Value::from).collect())
}
