//! Methods that Python's texts, lists and mappings have and templates call; most come from minijinja-contrib.

use minijinja::value::{Value, ValueKind, from_args};
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
                return Ok([before, found, after].into_iter().map(Value::from).collect());
            }
            "rpartition" => {
                let (separator,): (&str,) = from_args(args)?;
                let (before, after) = text.rsplit_once(separator).unwrap_or(("", text));
                let found = if text.contains(separator) { separator } else { "" };
                return Ok([before, found, after].into_iter().map(Value::from).collect());
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
