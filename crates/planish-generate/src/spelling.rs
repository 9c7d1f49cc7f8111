//! The bytes that tokens stand for within a text.

use std::collections::HashMap;

use serde_json::Value;

use crate::Tokenizer;
use crate::formats::{SPACE, byte_letters};

/// How a tokenizer writes bytes as tokens.
#[derive(Clone, Debug)]
pub(crate) enum Spelling {
    /// A letter for every byte.
    Letters(HashMap<char, u8>),
    /// As they are, spaces as another letter; `<0x0A>` is a byte where that is so.
    Plain { bytes: bool },
}

impl Spelling {
    /// By the tokenizer's decoder, as `tokenizer.json` has it.
    pub(crate) fn of(decoder: &Value) -> Spelling {
        match has(decoder, "ByteLevel") {
            true => Spelling::Letters(byte_letters().into_iter().zip(0..=255).collect()),
            false => Spelling::Plain {
                bytes: has(decoder, "ByteFallback"),
            },
        }
    }

    fn bytes(&self, token: &str) -> Vec<u8> {
        match self {
            Spelling::Letters(letters) => {
                let mut bytes = Vec::with_capacity(token.len());
                for letter in token.chars() {
                    match letters.get(&letter) {
                        Some(&byte) => bytes.push(byte),
                        None => bytes.extend_from_slice(letter.encode_utf8(&mut [0; 4]).as_bytes()),
                    }
                }
                bytes
            }
            Spelling::Plain { bytes } => match hexadecimal(token).filter(|_| *bytes) {
                Some(byte) => vec![byte],
                None => token.replace(SPACE, " ").into_bytes(),
            },
        }
    }
}

/// `<0x0A>`
fn hexadecimal(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

/// Whether a decoder, or one of those that it is a sequence of, is of this kind.
fn has(decoder: &Value, kind: &str) -> bool {
    let inner = decoder["decoders"].as_array();
    decoder["type"] == kind || inner.is_some_and(|inner| inner.iter().any(|decoder| has(decoder, kind)))
}

impl Tokenizer {
    /// The bytes that a token stands for in the middle of a text, special tokens as they are spelled. `None` for an id without a
    /// token.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        match self.added_text(id) {
            Some(text) => Some(text.as_bytes().to_vec()),
            None => Some(self.spelling().bytes(&self.token(id)?)),
        }
    }
}
