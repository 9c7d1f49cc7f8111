//! Text of a model as it comes, told apart: what it thinks, what it says, what it calls.

use super::json::{self, Object};
use super::{Family, Reading, Shape, literal, tags};

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// What the user is told.
    Text(String),
    /// What the model thinks before.
    Reasoning(String),
    /// A call of this tool begins.
    Call(String),
    /// More of the arguments of the call that began last.
    Arguments(String),
}

/// How far a call was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All letters are taken, the call goes on.
    More,
    /// So many bytes are taken, the rest cannot be told yet.
    Waits(usize),
    /// The call ended after so many bytes.
    Done(usize),
    /// This is no call, or not any more after so many bytes.
    Failed(usize),
}

/// Tells apart what comes in pieces. What is no call after all is text.
#[derive(Clone, Debug)]
pub struct Reader {
    reading: Reading,
    state: State,
    held: String,
}

#[derive(Clone, Debug)]
enum State {
    /// Nothing was said yet.
    Start {
        may_think: bool,
    },
    Thinking,
    Text,
    Call(Pending),
    /// After a call: its end, then others.
    Called {
        ended: bool,
    },
}

/// What may be a call.
#[derive(Clone, Debug)]
struct Pending {
    body: Body,
    /// Its text, as long as nothing of it was told.
    raw: String,
    /// Bytes of that which are its marks.
    marks: usize,
    told: bool,
}

impl Pending {
    fn new(shape: &Shape, raw: String) -> Pending {
        Pending {
            body: Body::of(shape),
            marks: raw.len(),
            raw,
            told: false,
        }
    }
}

/// A call that is being read.
#[derive(Clone, Debug)]
enum Body {
    Object(Object),
    List {
        open: bool,
        object: Option<Object>,
    },
    Named {
        named: bool,
        value: json::Value,
    },
    Tags(tags::Tagged),
    /// Read when all of it is there.
    Whole,
}

impl Body {
    fn of(shape: &Shape) -> Body {
        match shape {
            Shape::Object(_) => Body::Object(Object::default()),
            Shape::List(_) => Body::List {
                open: false,
                object: None,
            },
            Shape::Named { .. } => Body::Named {
                named: false,
                value: json::Value::default(),
            },
            Shape::Tags(_) => Body::Tags(tags::Tagged::default()),
            Shape::Python | Shape::Braces(_) | Shape::Channels => Body::Whole,
        }
    }
}

impl Reader {
    /// At the beginning of an answer.
    pub fn new(reading: Reading) -> Reader {
        let reasoning = reading.reasoning.as_ref();
        let state = match reasoning.is_some_and(|marks| marks.opened) {
            true => State::Thinking,
            false => State::Start {
                may_think: reasoning.is_some_and(|marks| marks.may_open),
            },
        };
        Reader {
            reading,
            state,
            held: String::new(),
        }
    }

    /// Whether what comes next is taken for reasoning.
    pub fn is_thinking(&self) -> bool {
        matches!(self.state, State::Thinking)
    }

    /// Whether what comes next is taken for a call.
    pub fn is_calling(&self) -> bool {
        matches!(self.state, State::Call(..) | State::Called { .. })
    }

    /// Takes the next text; what is certain now.
    pub fn push(&mut self, text: &str) -> Vec<Piece> {
        self.held.push_str(text);
        let mut pieces = Vec::new();
        while self.step(false, &mut pieces) {}
        pieces
    }

    /// The end of the answer: what was held back.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut pieces = Vec::new();
        while self.step(true, &mut pieces) {}
        while let State::Call(pending) = std::mem::replace(&mut self.state, State::Text) {
            self.give_up(pending, &mut pieces);
            while self.step(true, &mut pieces) {}
        }
        pieces
    }

    fn family(&self) -> Option<&'static Family> {
        self.reading.calls
    }

    /// What begins calls in the middle of a text.
    fn marker(&self) -> Option<&'static str> {
        let family = self.family()?;
        let marker = [family.before, family.open].into_iter().find(|mark| !mark.is_empty());
        marker.map(str::trim_end)
    }

    /// Whether there may be more to do.
    fn step(&mut self, end: bool, pieces: &mut Vec<Piece>) -> bool {
        match std::mem::replace(&mut self.state, State::Text) {
            State::Start { may_think } => self.start(may_think, end),
            State::Thinking => self.think(end, pieces),
            State::Text => self.say(end, pieces),
            State::Call(pending) => self.call(pending, end, pieces),
            State::Called { ended } => self.after(ended, end),
        }
    }

    fn start(&mut self, may_think: bool, end: bool) -> bool {
        let trimmed = self.held.trim_start();
        let waits = !end && !self.held.is_empty() && trimmed.is_empty();
        if let (true, Some(marks)) = (may_think, &self.reading.reasoning) {
            if let Some(rest) = trimmed.strip_prefix(marks.open.as_str()) {
                self.held = rest.to_owned();
                self.state = State::Thinking;
                return true;
            }
            if !end && marks.open.starts_with(trimmed) {
                self.state = State::Start { may_think };
                return false;
            }
        }
        let bare = self.family().filter(|_| self.marker().is_none());
        if let Some(family) = bare.filter(|family| family.shape != Shape::Channels) {
            // Llama may put it before calls.
            let call = trimmed.strip_prefix("<|python_tag|>").unwrap_or(trimmed);
            if call.starts_with('{') {
                self.held = call.to_owned();
                self.state = State::Call(Pending::new(&family.shape, String::new()));
                return true;
            }
            if waits || (!end && trimmed.is_empty()) || (!end && "<|python_tag|>".starts_with(trimmed)) {
                self.state = State::Start { may_think };
                return false;
            }
        }
        true
    }

    fn think(&mut self, end: bool, pieces: &mut Vec<Piece>) -> bool {
        let Some(marks) = &self.reading.reasoning else {
            return true;
        };
        if let Some(at) = self.held.find(marks.close.as_str()) {
            let rest = self.held.split_off(at + marks.close.len());
            self.held.truncate(at);
            if !self.held.is_empty() {
                pieces.push(Piece::Reasoning(std::mem::take(&mut self.held)));
            }
            self.held = rest;
            self.state = State::Called { ended: true };
            return true;
        }
        let kept = if end { 0 } else { begins(&self.held, &marks.close) };
        let rest = self.held.split_off(self.held.len() - kept);
        let thought = std::mem::replace(&mut self.held, rest);
        if !thought.is_empty() {
            pieces.push(Piece::Reasoning(thought));
        }
        self.state = State::Thinking;
        false
    }

    fn say(&mut self, end: bool, pieces: &mut Vec<Piece>) -> bool {
        let mut kept = 0;
        if let (Some(family), Some(marker)) = (self.family(), self.marker()) {
            if let Some(at) = self.held.find(marker) {
                say(self.held[..at].trim_end(), pieces);
                self.held = self.held.split_off(at);
                self.begin(family, "");
                return true;
            }
            if !end {
                kept = begins(&self.held, marker);
                let before = &self.held[..self.held.len() - kept];
                kept += before.len() - before.trim_end().len();
            }
        }
        let rest = self.held.split_off(self.held.len() - kept);
        say(&std::mem::replace(&mut self.held, rest), pieces);
        false
    }

    /// A call begins with what is held, after so much of its marks.
    fn begin(&mut self, family: &'static Family, before: &str) {
        let mut rest = self.held.as_str();
        for mark in [family.before, family.open] {
            let mark = mark.trim_end();
            rest = rest.trim_start();
            rest = rest.strip_prefix(mark).unwrap_or(rest);
        }
        let raw = format!("{before}{}", &self.held[..self.held.len() - rest.len()]);
        self.held = rest.to_owned();
        self.state = State::Call(Pending::new(&family.shape, raw));
    }

    /// What began as a call is none: its marks are text, and so is what follows, unless it holds a call.
    fn give_up(&mut self, pending: Pending, pieces: &mut Vec<Piece>) {
        let Pending { mut raw, marks, .. } = pending;
        let rest = raw.split_off(marks.min(raw.len()));
        say(&raw, pieces);
        self.held.insert_str(0, &rest);
        self.state = State::Text;
    }

    fn call(&mut self, mut pending: Pending, end: bool, pieces: &mut Vec<Piece>) -> bool {
        let Some(family) = self.family() else { return true };
        // Where the marks before all calls and before one came apart.
        let open = family.open.trim_end();
        if !family.before.is_empty() && pending.raw.trim_end() == family.before {
            let trimmed = self.held.trim_start();
            if trimmed.starts_with(open) {
                self.begin(family, &pending.raw);
                return true;
            }
            if !end && open.starts_with(trimmed) {
                self.state = State::Call(pending);
                return false;
            }
        }
        let before = pieces.len();
        let progress = self.read(&mut pending.body, family, end, pieces);
        pending.told |= pieces.len() > before;
        match progress {
            Progress::Done(bytes) => {
                self.held.drain(..bytes);
                self.state = State::Called { ended: false };
                true
            }
            Progress::More | Progress::Waits(_) => {
                let bytes = match progress {
                    Progress::Waits(bytes) => bytes,
                    _ => self.held.len(),
                };
                pending.raw.extend(self.held.drain(..bytes));
                if pending.told {
                    pending.raw.clear();
                }
                self.state = State::Call(pending);
                false
            }
            Progress::Failed(bytes) => {
                // What was told stays told.
                if pending.told {
                    pending.raw.clear();
                    self.held.drain(..bytes);
                }
                self.give_up(pending, pieces);
                true
            }
        }
    }

    fn read(&self, body: &mut Body, family: &Family, end: bool, pieces: &mut Vec<Piece>) -> Progress {
        let bare = self.marker().is_none();
        let known = |name: &str| !name.is_empty() && (!bare || self.reading.tool(name).is_some());
        let held = self.held.as_str();
        match (body, family.shape) {
            (Body::Object(object), _) => object.push(held, &known, pieces),
            (Body::List { open, object }, _) => json::list(held, (open, object), &known, pieces),
            (Body::Named { named, value }, Shape::Named { before, separator, .. }) => {
                let mut start = 0;
                if !*named {
                    let Some(at) = held.find(separator) else {
                        return Progress::Waits(0);
                    };
                    let name = held[..at].trim();
                    let name = name.strip_prefix(before).unwrap_or(name);
                    // Mistral may put a name for the call between.
                    let name = name.split("[CALL_ID]").next().unwrap_or_default().trim();
                    if !known(name) {
                        return Progress::Failed(0);
                    }
                    pieces.push(Piece::Call(name.to_owned()));
                    (*named, start) = (true, at + separator.len());
                }
                json::arguments(held, start, value, pieces)
            }
            (Body::Tags(tagged), Shape::Tags(marks)) => tagged.push(held, &marks, family.close, &self.reading, pieces),
            (Body::Whole, shape) => {
                let close = held.find(family.close);
                let Some(at) = close.or(end.then_some(held.len())) else {
                    return Progress::Waits(0);
                };
                let calls = match shape {
                    Shape::Braces(quote) => literal::braces(&held[..at], quote),
                    _ => literal::python(&held[..at]),
                };
                let Some(calls) = calls else {
                    return Progress::Failed(0);
                };
                for call in calls {
                    pieces.extend([Piece::Call(call.name), Piece::Arguments(call.arguments)]);
                }
                Progress::Done(at)
            }
            _ => Progress::Failed(0),
        }
    }

    /// After a call, or after reasoning: ends, then other calls, then text.
    fn after(&mut self, ended: bool, end: bool) -> bool {
        let trimmed = self.held.trim_start();
        let waits = |mark: &str| !end && mark.starts_with(trimmed);
        if let Some(family) = self.family() {
            let last = match family.shape {
                Shape::Named { end, .. } => end.trim(),
                _ => "",
            };
            for mark in [last, family.close.trim(), family.after] {
                if mark.is_empty() || (ended && mark != family.after) {
                    continue;
                }
                if let Some(rest) = trimmed.strip_prefix(mark) {
                    let ended = ended || mark != last;
                    self.held = rest.to_owned();
                    self.state = State::Called { ended };
                    return true;
                }
                if waits(mark) {
                    self.state = State::Called { ended };
                    return false;
                }
            }
            match self.marker() {
                Some(_) => {
                    for mark in [family.before, family.open.trim_end()] {
                        if !mark.is_empty() && trimmed.starts_with(mark) {
                            self.begin(family, "");
                            return true;
                        }
                        if !mark.is_empty() && waits(mark) {
                            self.state = State::Called { ended: true };
                            return false;
                        }
                    }
                }
                None => {
                    let next = trimmed.trim_start_matches([';', ',', ' ', '\n']);
                    if next.starts_with('{') {
                        self.held = next.to_owned();
                        self.state = State::Call(Pending::new(&family.shape, String::new()));
                        return true;
                    }
                    if !end && next.is_empty() {
                        self.state = State::Called { ended };
                        return false;
                    }
                }
            }
        }
        let trimmed = trimmed.to_owned();
        self.held = trimmed;
        if self.held.is_empty() && !end {
            self.state = State::Called { ended };
            return false;
        }
        true
    }
}

fn say(text: &str, pieces: &mut Vec<Piece>) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Bytes at the end of a text that may be the beginning of a mark.
fn begins(text: &str, mark: &str) -> usize {
    let lengths = (1..mark.len()).rev().filter(|&length| mark.is_char_boundary(length));
    let mut lengths = lengths.filter(|&length| text.ends_with(&mark[..length]));
    lengths.next().unwrap_or(0)
}
