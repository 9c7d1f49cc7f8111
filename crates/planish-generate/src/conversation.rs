//! A conversation as tokens: special tokens come from the chat template alone. Where somebody types `<|im_end|>` into a message, it
//! is text like any other and ends no turn.

use std::ops::Range;

use serde_json::Value;

use crate::{ChatTemplate, Error, Message, TemplateInput, Tokenizer};

/// Private characters that stand for special tokens while the template works: no text has them, and no template looks for them.
const FIRST: u32 = 0x10_0000;
const LAST: u32 = 0x10_FFFC;

/// Texts that must stay texts, each with the character that stands for it.
struct Quotes {
    quotes: Vec<(char, String)>,
}

impl Quotes {
    /// For what the messages hold of the special tokens; longer ones first, as one may begin like another.
    fn find(messages: &[Message], tokenizer: &Tokenizer) -> Quotes {
        let mut texts: Vec<&str> = Vec::new();
        for message in messages {
            message.each_text(&mut |text| texts.push(text));
        }
        let mut special: Vec<&str> = tokenizer.special_texts().collect();
        special.retain(|special| texts.iter().any(|text| text.contains(special)));
        special.sort_by_key(|special| std::cmp::Reverse(special.len()));
        let free = (FIRST..=LAST).filter_map(char::from_u32);
        let mut free = free.filter(|&stand| !texts.iter().any(|text| text.contains(stand)));
        let quotes = special
            .into_iter()
            .map_while(|text| Some((free.next()?, text.to_owned())));
        Quotes {
            quotes: quotes.collect(),
        }
    }

    fn apply(&self, text: &str) -> String {
        self.quotes.iter().fold(text.to_owned(), |text, (stand, special)| {
            text.replace(special, stand.encode_utf8(&mut [0; 4]))
        })
    }

    /// Where each character stands that stands for something, and for what.
    fn places<'a>(&'a self, text: &'a str) -> Vec<(Range<usize>, &'a str)> {
        let places = text.char_indices().filter_map(|(at, found)| {
            let (stand, special) = self.quotes.iter().find(|(stand, _)| *stand == found)?;
            Some((at..at + stand.len_utf8(), special.as_str()))
        });
        places.collect()
    }
}

impl Tokenizer {
    /// The ids of what the template makes of messages. Special tokens that stand in messages are encoded as plain text.
    ///
    /// # Errors
    /// As [`ChatTemplate::render`] and [`Tokenizer::encode`].
    pub fn encode_conversation(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        input: &TemplateInput,
    ) -> Result<Vec<u32>, Error> {
        let quotes = Quotes::find(messages, self);
        if quotes.quotes.is_empty() {
            return self.encode_plain(&template.render(messages, input)?);
        }
        let quoted: Vec<Message> = messages
            .iter()
            .map(|message| message.map_texts(&|text| quotes.apply(text)))
            .collect();
        let text = template.render(&quoted, input)?;
        let places = quotes.places(&text);
        match self.replaced(&text, &places)? {
            Some(ids) => Ok(ids),
            None => self.in_pieces(&text, &places),
        }
    }

    /// The ids of the text, of which those of every place are replaced. `None` where a token belongs to a place and to what is
    /// beside it.
    fn replaced(&self, text: &str, places: &[(Range<usize>, &str)]) -> Result<Option<Vec<u32>>, Error> {
        let (mut ids, mut rest) = (Vec::new(), places);
        let mut done = 0;
        for (id, covered) in self.encode_with_places(text)? {
            let over = |place: &Range<usize>| covered.start < place.end && place.start < covered.end;
            match rest {
                [(place, special), later @ ..] if over(place) => {
                    if covered != *place {
                        return Ok(None);
                    }
                    ids.extend(self.encode_as_text(special)?);
                    (done, rest) = (place.end, later);
                }
                // The last of several tokens of one place.
                _ if covered.start < done && covered.start < covered.end => {}
                _ => ids.push(id),
            }
        }
        // A normalizer may drop what it does not know.
        Ok(rest.is_empty().then_some(ids))
    }

    /// The same, encoded piece by piece.
    fn in_pieces(&self, text: &str, places: &[(Range<usize>, &str)]) -> Result<Vec<u32>, Error> {
        let (mut ids, mut end) = (Vec::new(), 0);
        for (place, special) in places {
            ids.extend(self.encode_plain(&text[end..place.start])?);
            ids.extend(self.encode_as_text(special)?);
            end = place.end;
        }
        ids.extend(self.encode_plain(&text[end..])?);
        Ok(ids)
    }
}

impl Message {
    /// Every text of the message but its role.
    fn each_text<'a>(&'a self, take: &mut dyn FnMut(&'a str)) {
        fn walk<'a>(value: &'a Value, take: &mut dyn FnMut(&'a str)) {
            match value {
                Value::String(text) => take(text),
                Value::Array(list) => list.iter().for_each(|value| walk(value, take)),
                Value::Object(fields) => fields.values().for_each(|value| walk(value, take)),
                _ => {}
            }
        }
        let fields = self.own_fields().iter().filter(|(name, _)| *name != "role");
        fields.for_each(|(_, value)| walk(value, take));
    }

    /// The message with other texts.
    fn map_texts(&self, map: &dyn Fn(&str) -> String) -> Message {
        fn walk(value: &Value, map: &dyn Fn(&str) -> String) -> Value {
            match value {
                Value::String(text) => Value::from(map(text)),
                Value::Array(list) => list.iter().map(|value| walk(value, map)).collect(),
                Value::Object(fields) => fields
                    .iter()
                    .map(|(name, value)| (name.clone(), walk(value, map)))
                    .collect(),
                other => other.clone(),
            }
        }
        let fields = self.own_fields().iter().map(|(name, value)| match name.as_str() {
            "role" => (name.clone(), value.clone()),
            _ => (name.clone(), walk(value, map)),
        });
        Message::from_fields(fields.collect())
    }
}
