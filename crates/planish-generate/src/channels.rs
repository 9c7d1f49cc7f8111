//! The texts of an answer out of its tokens: what the model thinks, says and calls.
//!
//! gpt-oss answers in messages of several channels: `<|channel|>analysis<|message|>..<|end|><|start|>assistant<|channel|>final
//! <|message|>..`. What is between the markers is text of the model's reasoning, its answer or the arguments of a call; the names of roles
//! and channels are neither. Other models put marks into the text, which [`Reader`] knows.

use crate::calls::Shape;
use crate::{Detokenizer, Error, Piece, Reader, Reading, Tokenizer};

/// The first tokens of the markers, by how they begin.
const MARKERS: [(&str, Marker); 5] = [
    ("<|start", Marker::Header),
    ("<|channel", Marker::Channel),
    ("<|message", Marker::Body),
    ("<|end|>", Marker::Header),
    ("<|call|>", Marker::Header),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Header,
    Channel,
    Body,
}

/// What a message of a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Answer,
    Reasoning,
    Call,
}

/// Tokens to texts of an answer, part by part.
#[derive(Clone, Debug)]
pub struct AnswerText<'a> {
    tokenizer: &'a Tokenizer,
    detokenizer: Detokenizer<'a>,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// All of it is the answer.
    Plain,
    Marks {
        reader: Box<Reader>,
        /// What special tokens spell.
        marks: Vec<String>,
    },
    Channels {
        /// Where the text goes; `None` in a header.
        part: Option<Part>,
        /// What the header says so far.
        header: String,
        /// Whether calls are taken out.
        calls: bool,
    },
}

impl<'a> AnswerText<'a> {
    /// For an answer that begins anew, or goes on with the text of `context`.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn new(tokenizer: &'a Tokenizer, context: &[u32], reading: &Reading) -> Result<AnswerText<'a>, Error> {
        let form = if tokenizer.has_channels() {
            Form::Channels {
                part: Some(Part::Answer),
                header: String::new(),
                calls: reading.calls.is_some_and(|family| family.shape == Shape::Channels),
            }
        } else if *reading == Reading::default() {
            Form::Plain
        } else {
            Form::Marks {
                reader: Box::new(Reader::new(reading.clone())),
                marks: reading.marks(),
            }
        };
        Ok(AnswerText {
            tokenizer,
            detokenizer: tokenizer.detokenizer_after(context)?,
            form,
        })
    }

    /// Whether the next token is taken for one of the answer itself.
    pub fn is_in_answer(&self) -> bool {
        match &self.form {
            Form::Plain => true,
            Form::Marks { reader, .. } => !reader.is_thinking() && !reader.is_calling(),
            Form::Channels { part, .. } => *part == Some(Part::Answer),
        }
    }

    /// Whether the next token is taken for one of reasoning.
    pub fn is_in_reasoning(&self) -> bool {
        match &self.form {
            Form::Plain => false,
            Form::Marks { reader, .. } => reader.is_thinking(),
            Form::Channels { part, .. } => *part == Some(Part::Reasoning),
        }
    }

    /// Takes one token; what is certain now, often nothing.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<Vec<Piece>, Error> {
        let special = self.tokenizer.special_text(token);
        match &mut self.form {
            Form::Plain => Ok(vec![Piece::Text(self.detokenizer.push(token)?)]),
            Form::Marks { reader, marks } => {
                // A special token is no text, unless a mark has it.
                let shown = special.filter(|special| marks.iter().any(|mark| mark.contains(special)));
                let text = match shown {
                    None => self.detokenizer.push(token)?,
                    Some(special) => {
                        let before = self.detokenizer.finish()?;
                        self.detokenizer = self.tokenizer.detokenizer();
                        before + special
                    }
                };
                Ok(reader.push(&text))
            }
            Form::Channels { .. } => self.push_in_channel(token, special),
        }
    }

    fn push_in_channel(&mut self, token: u32, special: Option<&str>) -> Result<Vec<Piece>, Error> {
        let Form::Channels { part, header, calls } = &mut self.form else {
            return Ok(Vec::new());
        };
        let marker = special.and_then(|text| {
            let known = MARKERS.iter().find(|(begin, _)| text.starts_with(begin));
            known.map(|(_, marker)| *marker)
        });
        let Some(marker) = marker else {
            let text = self.detokenizer.push(token)?;
            return Ok(match part {
                Some(part) => vec![part.piece(text)],
                None => {
                    header.push_str(&text);
                    Vec::new()
                }
            });
        };
        let rest = self.detokenizer.finish()?;
        self.detokenizer = self.tokenizer.detokenizer();
        let mut pieces: Vec<Piece> = part.map(|part| part.piece(rest)).into_iter().collect();
        match marker {
            Marker::Header => {
                *part = None;
                header.clear();
            }
            Marker::Channel => {
                *part = None;
                // Who is called may stand with the role.
                header.push(' ');
            }
            Marker::Body => {
                let (of, called) = part_of(header, *calls);
                pieces.extend(called.map(|name| Piece::Call(name.to_owned())));
                *part = Some(of);
                header.clear();
            }
        }
        Ok(pieces)
    }

    /// The end of the answer: what was still waiting.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<Vec<Piece>, Error> {
        let rest = self.detokenizer.finish()?;
        Ok(match &mut self.form {
            Form::Plain => vec![Piece::Text(rest)],
            Form::Marks { reader, .. } => {
                let mut pieces = reader.push(&rest);
                pieces.extend(reader.finish());
                pieces
            }
            Form::Channels { part, .. } => part.map(|part| part.piece(rest)).into_iter().collect(),
        })
    }
}

impl Part {
    fn piece(self, text: String) -> Piece {
        match self {
            Part::Answer => Piece::Text(text),
            Part::Reasoning => Piece::Reasoning(text),
            Part::Call => Piece::Arguments(text),
        }
    }
}

/// What a message with this header is, and whom it calls. A call that is not taken out is no word to the user either.
fn part_of(header: &str, calls: bool) -> (Part, Option<&str>) {
    let called = header
        .split_once("to=")
        .map(|(_, to)| to.split_whitespace().next().unwrap_or_default());
    let called = called.map(|to| to.strip_prefix("functions.").unwrap_or(to));
    if let Some(name) = called {
        return match calls {
            true => (Part::Call, Some(name)),
            false => (Part::Reasoning, None),
        };
    }
    let channel = header.trim();
    let channel = channel.strip_prefix("assistant").unwrap_or(channel).trim();
    match channel {
        "" | "final" => (Part::Answer, None),
        channel if channel.starts_with("commentary") => (Part::Answer, None),
        _ => (Part::Reasoning, None),
    }
}
