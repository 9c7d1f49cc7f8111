//! Python's ways that templates count on: methods of texts, lists and mappings (most come from minijinja-contrib), lenient
//! conversions, and how numbers are written.

use minijinja::value::{Kwargs, Rest, Tuple, Value, ValueKind, ValueOrKwargs, from_args};
use minijinja::{Error, ErrorKind, State};

use super::limits;

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
            // The library makes the whole of these before it counts their bytes.
            "replace" | "join" | "split" | "splitlines" | "format" => limits::check(state, largest(text, name, args))?,
            "rsplit" => {
                limits::check(state, largest(text, name, args))?;
                return reverse_split(text, args);
            }
            "zfill" | "ljust" | "rjust" | "center" => return padded(state, text, name, args),
            "swapcase" => {
                let () = from_args(args)?;
                let swapped = |letter: char| match letter.is_uppercase() {
                    true => letter.to_lowercase().collect::<String>(),
                    false => letter.to_uppercase().collect(),
                };
                return Ok(Value::from(text.chars().map(swapped).collect::<String>()));
            }
            "title" => {
                let () = from_args(args)?;
                let mut titled = String::with_capacity(text.len());
                let mut begins = true;
                for letter in text.chars() {
                    match begins {
                        true => titled.extend(letter.to_uppercase()),
                        false => titled.extend(letter.to_lowercase()),
                    }
                    begins = !letter.is_alphabetic();
                }
                return Ok(Value::from(titled));
            }
            "casefold" => {
                let () = from_args(args)?;
                return Ok(Value::from(text.to_lowercase()));
            }
            "expandtabs" => return expanded(state, text, args),
            "index" | "rindex" => {
                let finder = if name == "index" { "find" } else { "rfind" };
                let found = minijinja_contrib::pycompat::unknown_method_callback(state, value, finder, args)?;
                return match found.as_i64() {
                    Some(-1) => Err(Error::new(ErrorKind::InvalidOperation, "substring not found")),
                    _ => Ok(found),
                };
            }
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
    if matches!(value.kind(), ValueKind::Seq | ValueKind::Map) && name == "copy" {
        let () = from_args(args)?;
        return Ok(value.clone());
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

/// Bytes of a piece of text as a value in a list.
const PIECE_BYTES: usize = 48;

/// Bytes that a method of a text makes at most, nearly.
fn largest(text: &str, name: &str, args: &[Value]) -> usize {
    let argument = |index: usize| args.get(index).and_then(Value::as_str);
    let places = |part: Option<&str>| part.map_or(text.len(), |part| text.matches(part).count() + 1);
    match name {
        "replace" => {
            let new = argument(1).map_or(0, str::len);
            text.len().saturating_add(places(argument(0)).saturating_mul(new))
        }
        "join" => {
            let items = args.first().and_then(Value::len).unwrap_or(0);
            items.saturating_mul(text.len())
        }
        // Widths stand in the text, or are values for braces within braces.
        "format" => {
            let digits = text.split(|letter: char| !letter.is_ascii_digit());
            let widths = digits.filter_map(|digits| digits.parse::<usize>().ok());
            let values = args.iter().map(|value| match value.as_str() {
                Some(value) => value.len().saturating_mul(text.matches('{').count()),
                None if text.contains(":{") => value.as_i64().map_or(0, |width| width.unsigned_abs() as usize),
                None => 0,
            });
            widths.chain(values).fold(text.len(), usize::saturating_add)
        }
        "splitlines" => places(Some("\n")).saturating_mul(PIECE_BYTES),
        _ => places(argument(0)).saturating_mul(PIECE_BYTES),
    }
}

/// Methods that bring a text to a width.
fn padded(state: &State, text: &str, name: &str, args: &[Value]) -> Result<Value, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(text.chars().count());
    let fill = if name == "zfill" { "0" } else { fill.unwrap_or(" ") };
    limits::check(state, missing.saturating_mul(fill.len()))?;
    let (before, after) = match name {
        "zfill" | "rjust" => (missing, 0),
        "ljust" => (0, missing),
        // As Python's, which puts the odd one before where the width is odd.
        _ => {
            let before = missing / 2 + (missing & width as usize & 1);
            (before, missing - before)
        }
    };
    let sign = text.strip_prefix(['+', '-']).filter(|_| name == "zfill");
    let (sign, digits) = sign.map_or(("", text), |digits| (&text[..1], digits));
    Ok(Value::from(format!(
        "{sign}{}{digits}{}",
        fill.repeat(before),
        fill.repeat(after)
    )))
}

/// Tabs as spaces to the next multiple of a width.
fn expanded(state: &State, text: &str, args: &[Value]) -> Result<Value, Error> {
    let (width,): (Option<i64>,) = from_args(args)?;
    let width = usize::try_from(width.unwrap_or(8)).unwrap_or(0);
    limits::check(
        state,
        text.matches('\t')
            .count()
            .saturating_mul(width)
            .saturating_add(text.len()),
    )?;
    let (mut expanded, mut column) = (String::new(), 0);
    for letter in text.chars() {
        match letter {
            '\t' if width == 0 => {}
            '\t' => {
                let spaces = width - column % width;
                expanded.push_str(&" ".repeat(spaces));
                column += spaces;
            }
            _ => {
                expanded.push(letter);
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(Value::from(expanded))
}

/// The `truncate` filter, whose arguments may come without names.
pub(super) fn truncate(state: &mut State, value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let options = named(&["length", "killwords", "end", "leeway"], arguments.into_values())?;
    minijinja_contrib::filters::truncate(state, value, options)
}

/// The `wordwrap` filter, likewise.
pub(super) fn wordwrap(value: &Value, arguments: Rest<ValueOrKwargs>) -> Result<Value, Error> {
    let options = named(&["width", "break_long_words", "wrapstring"], arguments.into_values())?;
    minijinja_contrib::filters::wordwrap(value, options)
}

/// All arguments by name.
fn named(names: &[&str], mut arguments: Vec<Value>) -> Result<Kwargs, Error> {
    let mut named: Vec<(String, Value)> = Vec::new();
    if let Some(options) = arguments.pop_if(|last| last.is_kwargs()) {
        let options = Kwargs::try_from(options)?;
        for name in options.args() {
            named.push((name.to_owned(), options.get(name)?));
        }
    }
    let given = names.iter().map(|name| (*name).to_owned()).zip(arguments);
    Ok(given.chain(named).collect())
}

/// The `random` filter: one of the items.
pub(super) fn random(value: &Value) -> Result<Value, Error> {
    let items: Vec<Value> = value.try_iter()?.collect();
    let index = crate::random::fresh_seed() as usize % items.len().max(1);
    Ok(items.get(index).cloned().unwrap_or(Value::UNDEFINED))
}

/// The `escape` filter, in markupsafe's words.
pub(super) fn escape(value: &Value) -> String {
    let text = value.to_string();
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&#34;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// The `urlencode` filter, for texts.
pub(super) fn percent_encoded(value: &Value) -> String {
    let mut encoded = String::new();
    for byte in value.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' | b'/' => encoded.push(byte.into()),
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
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
