//! gpt-oss's way to answer, in messages of several channels: `<|channel|>analysis<|message|>..<|end|><|start|>assistant<|channel|>final
//! <|message|>..`. What is between the markers is text of the model's reasoning or of its answer; the names of roles and channels are
//! neither.

use crate::{Detokenizer, Error, Tokenizer};

/// What a piece of text belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What the user is told.
    Answer,
    /// What the model thinks before.
    Reasoning,
}

/// The first tokens of the markers, by how they begin.
const MARKERS: [(&str, Marker); 4] = [
    ("<|start", Marker::Header),
    ("<|channel", Marker::Channel),
    ("<|message", Marker::Body),
    ("<|end|", Marker::Header),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Marker {
    Header,
    Channel,
    Body,
}

/// Tokens to texts of an answer, by part; a model without channels has one part.
#[derive(Clone, Debug)]
pub struct AnswerText<'a> {
    tokenizer: &'a Tokenizer,
    detokenizer: Detokenizer<'a>,
    /// Where the text goes; `None` in a header.
    part: Option<Part>,
    /// The channel that is being named.
    channel: Option<String>,
}

impl<'a> AnswerText<'a> {
    /// For an answer that begins anew, or goes on with the text of `context`.
    pub fn new(tokenizer: &'a Tokenizer, context: &[u32]) -> Result<AnswerText<'a>, Error> {
        Ok(AnswerText {
            tokenizer,
            detokenizer: tokenizer.detokenizer_after(context)?,
            part: Some(Part::Answer),
            channel: None,
        })
    }

    /// Takes one token; the text that is now certain, often empty.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn push(&mut self, token: u32) -> Result<(Part, String), Error> {
        if !self.tokenizer.has_channels() {
            return Ok((Part::Answer, self.detokenizer.push(token)?));
        }
        let marker = self.tokenizer.special_text(token).and_then(|text| {
            let known = MARKERS.iter().find(|(begin, _)| text.starts_with(begin));
            known.map(|(_, marker)| *marker)
        });
        let Some(marker) = marker else {
            let text = self.detokenizer.push(token)?;
            return Ok(match (self.part, &mut self.channel) {
                (Some(part), _) => (part, text),
                (None, channel) => {
                    channel.get_or_insert_default().push_str(&text);
                    (Part::Answer, String::new())
                }
            });
        };
        let rest = self.detokenizer.finish()?;
        self.detokenizer = self.tokenizer.detokenizer();
        let before = self.part;
        match marker {
            Marker::Header | Marker::Channel => (self.part, self.channel) = (None, None),
            Marker::Body => self.part = Some(part_of(self.channel.take().as_deref())),
        }
        Ok((
            before.unwrap_or(Part::Answer),
            if before.is_some() { rest } else { String::new() },
        ))
    }

    /// The end of the answer: the text that was still waiting.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<(Part, String), Error> {
        let rest = self.detokenizer.finish()?;
        Ok(match self.part {
            Some(part) => (part, rest),
            None => (Part::Answer, String::new()),
        })
    }
}

/// Calls of tools are no words to the user either.
fn part_of(channel: Option<&str>) -> Part {
    match channel.map(str::trim) {
        None | Some("final" | "assistant" | "") => Part::Answer,
        Some(channel) if channel.starts_with("commentary") && !channel.contains("to=") => Part::Answer,
        Some(_) => Part::Reasoning,
    }
}
