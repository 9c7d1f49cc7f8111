//! Python's `json.dumps` of a template value: its separators, indents, number formats and escapes.

use std::fmt::Write;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::iteration::Generator;
use super::python;

/// The keyword arguments of `json.dumps` that templates use.
#[derive(Default)]
pub(super) struct Style {
    /// Spell what is not ASCII as `\u....`.
    pub ensure_ascii: bool,
    /// Number of spaces, or the text itself, per level; one line if absent.
    pub indent: Option<Value>,
    /// Between items, and between key and value.
    pub separators: Option<(String, String)>,
    /// Order objects by key.
    pub sort_keys: bool,
}

/// Levels of lists and objects, about as many as Python's `json` descends.
const MOST_LEVELS: usize = 900;

/// The value as JSON text of at most so many bytes.
pub(super) fn dumps(value: &Value, style: &Style, most_bytes: usize) -> Result<String, Error> {
    let indent = match &style.indent {
        None => None,
        Some(indent) => Some(match (indent.as_str(), indent.as_i64()) {
            (Some(text), _) => text.to_owned(),
            (None, Some(spaces)) => " ".repeat(usize::try_from(spaces).unwrap_or(0).min(64)),
            _ => {
                return Err(invalid(format!(
                    "tojson: indent is {indent}, expected a number or a text"
                )));
            }
        }),
    };
    let (item, key) = match &style.separators {
        Some((item, key)) => (item.as_str(), key.as_str()),
        None if indent.is_some() => (",", ": "),
        None => (", ", ": "),
    };
    let mut writer = Writer {
        text: String::new(),
        style,
        indent: indent.as_deref(),
        item,
        key,
        depth: 0,
        most_bytes,
    };
    writer.value(value)?;
    Ok(writer.text)
}

struct Writer<'a> {
    text: String,
    style: &'a Style,
    indent: Option<&'a str>,
    item: &'a str,
    key: &'a str,
    depth: usize,
    most_bytes: usize,
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) -> Result<(), Error> {
        if self.text.len() > self.most_bytes {
            return Err(ErrorKind::OutOfFuel.into());
        }
        if self.depth > MOST_LEVELS {
            return Err(invalid(format!("tojson: more than {MOST_LEVELS} levels")));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Map => return self.object(value),
            ValueKind::Iterable if value.downcast_object_ref::<Generator>().is_some() => {
                return Err(invalid(
                    "tojson: a generator has no JSON form; |list makes a list of it".to_owned(),
                ));
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                return self.items('[', ']', items, |writer, item| writer.value(&item));
            }
            kind => return Err(invalid(format!("tojson: a value of type {kind} has no JSON form"))),
        }
        Ok(())
    }

    fn object(&mut self, value: &Value) -> Result<(), Error> {
        let mut pairs = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            pairs.push((key_text(&key)?, item));
        }
        if self.style.sort_keys {
            pairs.sort_by(|(left, _), (right, _)| left.cmp(right));
        }
        self.items('{', '}', pairs, |writer, (key, item)| {
            writer.string(&key);
            writer.text.push_str(writer.key);
            writer.value(&item)
        })
    }

    fn items<T>(
        &mut self,
        open: char,
        close: char,
        items: Vec<T>,
        mut write: impl FnMut(&mut Self, T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(open);
        let is_empty = items.is_empty();
        self.depth += 1;
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.text.push_str(self.item);
            }
            self.new_line();
            write(self, item)?;
        }
        self.depth -= 1;
        if !is_empty {
            self.new_line();
        }
        self.text.push(close);
        Ok(())
    }

    fn new_line(&mut self) {
        if let Some(indent) = self.indent {
            self.text.push('\n');
            for _ in 0..self.depth {
                self.text.push_str(indent);
            }
        }
    }

    fn number(&mut self, value: &Value) {
        if value.is_integer() {
            let _ = write!(self.text, "{value}");
        } else {
            let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
            self.text.push_str(&float_text(number));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                control if control < ' ' => self.escape(control),
                other if self.style.ensure_ascii && !(' '..='~').contains(&other) => self.escape(other),
                other => self.text.push(other),
            }
        }
        self.text.push('"');
    }

    fn escape(&mut self, character: char) {
        for unit in character.encode_utf16(&mut [0; 2]) {
            let _ = write!(self.text, "\\u{unit:04x}");
        }
    }
}

/// A key as Python's `json.dumps` writes it: numbers, booleans and None become text.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::Bool | ValueKind::None | ValueKind::Number => dumps(key, &Style::default(), usize::MAX),
        kind => Err(invalid(format!("tojson: a key of type {kind} has no JSON form"))),
    }
}

/// A float as `json.dumps` writes it: names for what JSON has no number for.
fn float_text(number: f64) -> String {
    match number {
        number if number.is_nan() => "NaN".to_owned(),
        f64::INFINITY => "Infinity".to_owned(),
        f64::NEG_INFINITY => "-Infinity".to_owned(),
        number => python::float_text(number),
    }
}

fn invalid(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}
