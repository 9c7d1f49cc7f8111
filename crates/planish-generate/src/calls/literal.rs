//! Calls written as expressions: of Python, or with braces.

use serde_json::{Map, Number, Value};

use super::Call;

/// `[name(key=value, ..), ..]`, or one without the brackets.
pub(super) fn python(text: &str) -> Option<Vec<Call>> {
    let text = text.trim();
    let inner = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let mut letters = Letters::new(inner.unwrap_or(text), None);
    let mut calls = Vec::new();
    loop {
        let name = letters.name()?;
        letters.expect('(')?;
        let mut arguments = Map::new();
        while !letters.accept(')') {
            let key = letters.name()?;
            letters.expect('=')?;
            arguments.insert(key, letters.value(0)?);
            if !letters.accept(',') {
                letters.expect(')')?;
                break;
            }
        }
        calls.push(Call {
            name,
            arguments: Value::Object(arguments).to_string(),
        });
        if !letters.accept(',') {
            return letters.is_over().then_some(calls);
        }
    }
}

/// `call:name{key:value, ..}`, texts between these marks.
pub(super) fn braces(text: &str, quote: &'static str) -> Option<Vec<Call>> {
    let text = text.trim().strip_prefix("call:")?;
    let mut letters = Letters::new(text, Some(quote));
    let name = letters.name()?;
    let arguments = letters.value(0).filter(Value::is_object)?;
    let call = Call {
        name,
        arguments: arguments.to_string(),
    };
    letters.is_over().then(|| vec![call])
}

/// What is left to be read.
struct Letters<'a> {
    rest: &'a str,
    quote: Option<&'static str>,
}

/// Lists within lists, at most.
const DEEPEST: usize = 64;

impl<'a> Letters<'a> {
    fn new(rest: &'a str, quote: Option<&'static str>) -> Letters<'a> {
        Letters { rest, quote }
    }

    fn is_over(&self) -> bool {
        self.rest.trim().is_empty()
    }

    fn accept(&mut self, letter: char) -> bool {
        let rest = self.rest.trim_start().strip_prefix(letter);
        rest.inspect(|rest| self.rest = rest).is_some()
    }

    fn expect(&mut self, letter: char) -> Option<()> {
        self.accept(letter).then_some(())
    }

    /// A name without quotes.
    fn name(&mut self) -> Option<String> {
        let rest = self.rest.trim_start();
        let is_part = |letter: char| letter.is_alphanumeric() || "_.-".contains(letter);
        let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        self.rest = &rest[end..];
        (end > 0).then(|| rest[..end].to_owned())
    }

    fn value(&mut self, depth: usize) -> Option<Value> {
        let rest = self.rest.trim_start();
        if depth > DEEPEST {
            return None;
        }
        if let Some(text) = self.quote.and_then(|quote| rest.strip_prefix(quote)) {
            let (text, rest) = text.split_once(self.quote?)?;
            self.rest = rest;
            return Some(Value::from(text));
        }
        match rest.chars().next()? {
            quote @ ('"' | '\'') => self.text(quote).map(Value::from),
            '[' => self.list(depth),
            '{' => self.object(depth),
            _ => self.word(),
        }
    }

    fn list(&mut self, depth: usize) -> Option<Value> {
        self.expect('[')?;
        let mut list = Vec::new();
        while !self.accept(']') {
            list.push(self.value(depth + 1)?);
            if !self.accept(',') {
                self.expect(']')?;
                break;
            }
        }
        Some(Value::Array(list))
    }

    fn object(&mut self, depth: usize) -> Option<Value> {
        self.expect('{')?;
        let mut fields = Map::new();
        while !self.accept('}') {
            let rest = self.rest.trim_start();
            let quoted = rest.starts_with(['"', '\'']) || self.quote.is_some_and(|quote| rest.starts_with(quote));
            let key = match quoted {
                true => self.value(depth + 1)?.as_str()?.to_owned(),
                false => self.name()?,
            };
            self.expect(':')?;
            fields.insert(key, self.value(depth + 1)?);
            if !self.accept(',') {
                self.expect('}')?;
                break;
            }
        }
        Some(Value::Object(fields))
    }

    /// A text between quotes, with the escapes that JSON and Python share.
    fn text(&mut self, quote: char) -> Option<String> {
        let rest = self.rest.trim_start().strip_prefix(quote)?;
        let mut text = String::new();
        let mut letters = rest.char_indices();
        while let Some((at, letter)) = letters.next() {
            match letter {
                _ if letter == quote => {
                    self.rest = &rest[at + quote.len_utf8()..];
                    return Some(text);
                }
                '\\' => match letters.next()?.1 {
                    'n' => text.push('\n'),
                    't' => text.push('\t'),
                    'r' => text.push('\r'),
                    'u' => {
                        let digits: String = letters.by_ref().take(4).map(|(_, digit)| digit).collect();
                        text.push(char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?);
                    }
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        None
    }

    /// A number, or a word that stands for a value.
    fn word(&mut self) -> Option<Value> {
        let rest = self.rest.trim_start();
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || "+-.".contains(letter);
        let end = rest.find(|letter| !is_part(letter)).unwrap_or(rest.len());
        let word = &rest[..end];
        self.rest = &rest[end..];
        Some(match word {
            "True" | "true" => Value::Bool(true),
            "False" | "false" => Value::Bool(false),
            "None" | "null" => Value::Null,
            _ => match word.parse::<i64>() {
                Ok(number) => Value::from(number),
                Err(_) => Value::Number(Number::from_f64(word.parse().ok()?)?),
            },
        })
    }
}
