//! A call written as a JSON object, taken apart as it comes.

use super::reader::{Piece, Progress};

/// One JSON value, letter by letter.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    depth: usize,
    text: bool,
    escaped: bool,
    begun: bool,
}

/// What a letter is to a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Letter {
    /// White space before it.
    Before,
    /// A part of it.
    Inside,
    /// Its last one.
    Last,
    /// The first after it.
    After,
}

impl Value {
    pub(super) fn take(&mut self, letter: char) -> Letter {
        if self.text {
            match letter {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                '"' => {
                    self.text = false;
                    return self.closed();
                }
                _ => {}
            }
            return Letter::Inside;
        }
        match letter {
            _ if !self.begun && letter.is_whitespace() => return Letter::Before,
            '"' => self.text = true,
            '{' | '[' => self.depth += 1,
            '}' | ']' | ',' if self.depth == 0 => return Letter::After,
            '}' | ']' => {
                self.depth -= 1;
                return self.closed();
            }
            _ if self.depth == 0 && letter.is_whitespace() => return Letter::After,
            _ => {}
        }
        self.begun = true;
        Letter::Inside
    }

    fn closed(&self) -> Letter {
        match self.depth {
            0 => Letter::Last,
            _ => Letter::Inside,
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum At {
    #[default]
    Open,
    Key,
    InKey,
    Colon,
    Value,
}

/// `{"name": .., "arguments": {..}}`, its keys in any order.
#[derive(Clone, Debug, Default)]
pub(super) struct Object {
    at: At,
    key: String,
    value: Value,
    /// Whether the value is a text, once it began.
    quoted: Option<bool>,
    text: String,
    name: Option<String>,
    /// Arguments that came before the name, or as a text.
    held: String,
    told: bool,
}

impl Object {
    /// Takes the letters up to the end of the object.
    pub(super) fn push(&mut self, text: &str, known: &dyn Fn(&str) -> bool, pieces: &mut Vec<Piece>) -> Progress {
        for (at, letter) in text.char_indices() {
            let next = at + letter.len_utf8();
            match self.letter(letter, known, pieces) {
                Progress::More => {}
                Progress::Done(_) => return Progress::Done(next),
                Progress::Failed(_) => return Progress::Failed(at),
                other => return other,
            }
        }
        Progress::More
    }

    fn letter(&mut self, letter: char, known: &dyn Fn(&str) -> bool, pieces: &mut Vec<Piece>) -> Progress {
        match self.at {
            At::InKey if letter == '"' => self.at = At::Colon,
            At::InKey => self.key.push(letter),
            At::Value => match self.value.take(letter) {
                Letter::Before => {}
                Letter::Inside => self.part(letter, pieces),
                Letter::Last => {
                    self.part(letter, pieces);
                    return self.end_of_value(known, pieces);
                }
                Letter::After => {
                    let progress = self.end_of_value(known, pieces);
                    return match progress {
                        Progress::More => self.letter(letter, known, pieces),
                        other => other,
                    };
                }
            },
            _ if letter.is_whitespace() => {}
            At::Open if letter == '{' => self.at = At::Key,
            At::Colon if letter == ':' => {
                (self.at, self.value, self.quoted) = (At::Value, Value::default(), None);
                self.text.clear();
            }
            At::Key if letter == ',' => {}
            At::Key if letter == '"' => {
                self.at = At::InKey;
                self.key.clear();
            }
            At::Key if letter == '}' => return self.end(pieces),
            At::Open | At::Key | At::Colon => return Progress::Failed(0),
        }
        Progress::More
    }

    fn is_arguments(&self) -> bool {
        ["arguments", "parameters"].contains(&self.key.as_str())
    }

    fn part(&mut self, letter: char, pieces: &mut Vec<Piece>) {
        let quoted = *self.quoted.get_or_insert(letter == '"');
        match self.is_arguments() && !quoted && self.name.is_some() {
            true => self.tell(letter.encode_utf8(&mut [0; 4]), pieces),
            false => self.text.push(letter),
        }
    }

    fn tell(&mut self, text: &str, pieces: &mut Vec<Piece>) {
        self.told = true;
        match pieces.last_mut() {
            Some(Piece::Arguments(last)) => last.push_str(text),
            _ => pieces.push(Piece::Arguments(text.to_owned())),
        }
    }

    fn end_of_value(&mut self, known: &dyn Fn(&str) -> bool, pieces: &mut Vec<Piece>) -> Progress {
        self.at = At::Key;
        let text = std::mem::take(&mut self.text);
        let whole: Option<String> = serde_json::from_str(&text).ok();
        if self.key == "name" {
            let Some(name) = whole.filter(|name| self.name.is_none() && known(name)) else {
                return Progress::Failed(0);
            };
            pieces.push(Piece::Call(name.clone()));
            self.name = Some(name);
            let held = std::mem::take(&mut self.held);
            if !held.is_empty() {
                self.tell(&held, pieces);
            }
        } else if self.is_arguments() && !text.is_empty() {
            // Some models write the arguments as a text that holds JSON.
            let arguments = whole.unwrap_or(text);
            match self.name.is_some() {
                true => self.tell(&arguments, pieces),
                false => self.held = arguments,
            }
        }
        Progress::More
    }

    fn end(&mut self, pieces: &mut Vec<Piece>) -> Progress {
        if self.name.is_none() {
            return Progress::Failed(0);
        }
        if !self.told {
            self.tell("{}", pieces);
        }
        Progress::Done(0)
    }
}

/// `[{..}, {..}]`
pub(super) fn list(
    held: &str,
    (open, object): (&mut bool, &mut Option<Object>),
    known: &dyn Fn(&str) -> bool,
    pieces: &mut Vec<Piece>,
) -> Progress {
    let mut at = 0;
    while let Some(letter) = held[at..].chars().next() {
        if let Some(current) = object {
            match current.push(&held[at..], known, pieces) {
                Progress::Done(bytes) => (at, *object) = (at + bytes, None),
                Progress::Failed(bytes) => return Progress::Failed(at + bytes),
                other => return other,
            }
            continue;
        }
        match letter {
            '[' if !*open => *open = true,
            '{' if *open => {
                *object = Some(Object::default());
                continue;
            }
            ']' if *open => return Progress::Done(at + 1),
            ',' if *open => {}
            _ if letter.is_whitespace() => {}
            _ => return Progress::Failed(at),
        }
        at += letter.len_utf8();
    }
    Progress::More
}

/// A JSON value, told as it comes.
pub(super) fn arguments(held: &str, start: usize, value: &mut Value, pieces: &mut Vec<Piece>) -> Progress {
    let mut text = String::new();
    let mut progress = Progress::More;
    for (at, letter) in held[start..].char_indices() {
        match value.take(letter) {
            Letter::Before => continue,
            Letter::Inside => text.push(letter),
            Letter::Last => {
                text.push(letter);
                progress = Progress::Done(start + at + letter.len_utf8());
                break;
            }
            Letter::After => {
                progress = Progress::Done(start + at);
                break;
            }
        }
    }
    if !text.is_empty() {
        pieces.push(Piece::Arguments(text));
    }
    progress
}
