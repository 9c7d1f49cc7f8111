//! Calls whose name, keys and values stand between marks; values that are texts stand as they are.

use serde_json::Value;

use super::Reading;
use super::families::Tags;
use super::reader::{Piece, Progress};

/// How far such a call was read.
#[derive(Clone, Debug, Default)]
pub(super) struct Tagged {
    name: Option<String>,
    arguments: usize,
}

impl Tagged {
    /// Takes what is whole: the name, then each argument with its value.
    pub(super) fn push(
        &mut self,
        held: &str,
        marks: &Tags,
        close: &str,
        reading: &Reading,
        pieces: &mut Vec<Piece>,
    ) -> Progress {
        let close = close.trim();
        let mut rest = held.trim_start();
        let taken = |rest: &str| held.len() - rest.len();
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let Some(after) = rest.strip_prefix(marks.name.0) else {
                    return match marks.name.0.starts_with(rest) {
                        true => Progress::Waits(0),
                        false => Progress::Failed(0),
                    };
                };
                // A name ends with its mark, or where something else begins.
                let mark = marks.name.1.trim();
                let ends = |letter: char| letter == '<' || letter == '\n' || mark.starts_with(letter);
                let Some(at) = after.find(ends) else {
                    return Progress::Waits(0);
                };
                let name = after[..at].trim().to_owned();
                if name.is_empty() {
                    return Progress::Failed(0);
                }
                rest = after[at..].strip_prefix(mark).unwrap_or(&after[at..]);
                pieces.extend([Piece::Call(name.clone()), Piece::Arguments("{".to_owned())]);
                self.name = Some(name.clone());
                name
            }
        };
        loop {
            let trimmed = rest.trim_start();
            if let Some(after) = trimmed.strip_prefix(marks.key.0) {
                let Some((key, value)) = after.split_once(marks.key.1.trim_end()) else {
                    return Progress::Waits(taken(rest));
                };
                let value = value.trim_start_matches(['\r', ' ']);
                let value = match marks.value.0 {
                    "" => Some(value),
                    mark => value.trim_start().strip_prefix(mark),
                };
                let Some((value, after)) = value.and_then(|value| value.split_once(marks.value.1.trim())) else {
                    return Progress::Waits(taken(rest));
                };
                let comma = if self.arguments > 0 { ", " } else { "" };
                self.arguments += 1;
                let value = typed(&name, key.trim(), value, reading);
                let text = format!("{comma}{}: {value}", Value::from(key.trim()));
                pieces.push(Piece::Arguments(text));
                rest = after;
                continue;
            }
            for mark in [marks.end, close].into_iter().filter(|mark| !mark.is_empty()) {
                if let Some(after) = trimmed.strip_prefix(mark) {
                    pieces.push(Piece::Arguments("}".to_owned()));
                    // The close itself is taken by whoever reads on.
                    return Progress::Done(if mark == marks.end {
                        taken(after)
                    } else {
                        taken(trimmed)
                    });
                }
            }
            return Progress::Waits(taken(rest));
        }
    }
}

/// A value as its schema has it: a text as it stands, everything else as JSON if it is.
fn typed(tool: &str, key: &str, value: &str, reading: &Reading) -> Value {
    let bare = value.strip_prefix('\n').unwrap_or(value);
    let bare = bare.strip_suffix('\n').unwrap_or(bare);
    let schema = reading.tool(tool).and_then(|tool| tool.argument(key));
    let is_text = schema.is_some_and(|schema| schema["type"] == "string");
    match is_text {
        true => Value::from(bare),
        false => serde_json::from_str(bare.trim()).unwrap_or_else(|_| Value::from(bare)),
    }
}
