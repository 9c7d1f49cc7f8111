//! Text to token ids and back, as transformers does it from `tokenizer.json` or the older files of a tokenizer.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::OnceLock;

use serde_json::Value;
use tokenizers::AddedToken;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;

use crate::files::Files;
use crate::foreign::guarded;
use crate::formats::{self, Converted, SPACE};
use crate::special::SpecialTokens;
use crate::spelling::Spelling;
use crate::{Detokenizer, Error};

const FILE: &str = "tokenizer.json";
const MOST_GROWTH: usize = 1000;
/// A private character that no word has.
const BEFORE: char = '\u{10FFFD}';

/// The tokenizer of a checkpoint. Ids are positions in the model's vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The same that takes special tokens for text, once it is needed.
    literal: OnceLock<tokenizers::Tokenizer>,
    /// The file that it was read from.
    file: String,
    special: SpecialTokens,
    added: HashMap<u32, AddedToken>,
    channels: bool,
    /// How tokens spell bytes, once it is needed.
    spelling: OnceLock<Spelling>,
    /// What stands before and after a text, and is no business of `inner`.
    around: [Option<u32>; 2],
    /// Whether the first word of a text gets a space here.
    space_first: bool,
}

impl Tokenizer {
    /// Reads `tokenizer.json`, else one of the other files of [`Files::other_tokenizers`], and the special tokens of
    /// `tokenizer_config.json`.
    ///
    /// # Errors
    /// When there is no such file, one of a kind that is not read, or one of the files contradicts its format.
    pub fn new(files: &Files) -> Result<Tokenizer, Error> {
        let mut special = SpecialTokens::read(files)?;
        let Converted {
            file,
            mut inner,
            around,
            space_first,
        } = match &files.tokenizer {
            Some(bytes) => from_json(bytes)?,
            None => formats::read(files, &mut special)?,
        };
        let known = inner.get_added_tokens_decoder();
        let known: HashSet<&str> = known.values().map(|token| token.content.as_str()).collect();
        let is_known = |token: &&AddedToken| known.contains(token.content.as_str());
        let missing: Vec<AddedToken> = special.added.iter().filter(|token| !is_known(token)).cloned().collect();
        guarded(|| inner.add_tokens(missing))
            .map_err(|panic| refused(&file, panic))?
            .map_err(|error| Error::bad_file("tokenizer_config.json", error))?;
        let added: HashMap<u32, AddedToken> = inner.get_added_tokens_decoder().clone().into_iter().collect();
        let names = ["<|start|>", "<|channel|>", "<|message|>", "<|end|>"];
        let is_special = |name: &&str| added.values().any(|token| token.special && token.content == **name);
        Ok(Tokenizer {
            channels: names.iter().all(is_special),
            inner,
            literal: OnceLock::new(),
            spelling: OnceLock::new(),
            file,
            around,
            space_first,
            special,
            added,
        })
    }

    /// The ids of `text`, with the special tokens that the model expects around a text (often a first `<s>`).
    ///
    /// # Errors
    /// When the text holds something outside the vocabulary and the tokenizer has no unknown token.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_with(text, true)
    }

    /// The ids of `text` alone: for text that already spells its special tokens, as the output of a chat template does.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_with(text, false)
    }

    fn encode_with(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>, Error> {
        let (input, shift) = self.input(text);
        let encoding = self.guarded(|| self.inner.encode_fast(&*input, add_special_tokens))?;
        let ids = encoding.get_ids();
        let [before, after] = match add_special_tokens {
            true => self.around,
            false => [None; 2],
        };
        let ids = &ids[self.idle(ids, text, shift)..];
        Ok(before.into_iter().chain(ids.iter().copied()).chain(after).collect())
    }

    /// The ids of `text` alone, each with the bytes of `text` that it stands for.
    pub(crate) fn encode_with_places(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, Error> {
        let (input, shift) = self.input(text);
        let encoding = self.guarded(|| self.inner.encode(&*input, false))?;
        let ids = encoding.get_ids();
        let places = encoding.get_offsets().iter();
        let places = places.map(|&(start, end)| start.saturating_sub(shift)..end.saturating_sub(shift));
        let idle = self.idle(ids, text, shift);
        Ok(ids.iter().copied().zip(places).skip(idle).collect())
    }

    /// The ids of `text` in the middle of a text, special tokens taken for text.
    pub(crate) fn encode_as_text(&self, text: &str) -> Result<Vec<u32>, Error> {
        let literal = self.literal.get_or_init(|| {
            let mut literal = self.inner.clone();
            literal.set_encode_special_tokens(true);
            literal
        });
        // Something before it, and it is not taken for the beginning of a text.
        let input = format!("{BEFORE}{text}");
        let encoding = self.guarded(|| literal.encode(&*input, false))?;
        let places = encoding.get_offsets().iter();
        let first = places.take_while(|&&(start, _)| start < BEFORE.len_utf8()).count();
        match first.checked_sub(1).map(|last| encoding.get_offsets()[last].1) {
            Some(end) if end <= BEFORE.len_utf8() => Ok(encoding.get_ids()[first..].to_vec()),
            // It became one with what is before it.
            _ => Ok(self.guarded(|| literal.encode_fast(text, false))?.get_ids().to_vec()),
        }
    }

    /// The text as the library gets it, and how many bytes were put before it.
    fn input<'a>(&self, text: &'a str) -> (Cow<'a, str>, usize) {
        match self.space_first && !text.is_empty() {
            true => (format!("{SPACE}{text}").into(), SPACE.len_utf8()),
            false => (text.into(), 0),
        }
    }

    /// Ids at the beginning that stand for a space where there is none: before a special token is no word.
    fn idle(&self, ids: &[u32], text: &str, shift: usize) -> usize {
        let [first, second, ..] = ids else { return 0 };
        let special = self.special_text(*second);
        let before_special = shift > 0 && special.is_some_and(|special| text.starts_with(special));
        let first = self.inner.id_to_token(*first);
        usize::from(before_special && first.is_some_and(|token| token.chars().eq([SPACE])))
    }

    /// Calls the library.
    fn guarded<T>(&self, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Error> {
        guarded(call)
            .map_err(|panic| refused(&self.file, panic))?
            .map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// The text of `ids`, special tokens left out. Ids outside the vocabulary are left out too.
    ///
    /// # Errors
    /// When the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, true)
    }

    /// The text of `ids`, special tokens spelled out.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn decode_with_special_tokens(&self, ids: &[u32]) -> Result<String, Error> {
        self.decode_with(ids, false)
    }

    fn decode_with(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, Error> {
        self.guarded(|| self.inner.decode(ids, skip_special_tokens))
    }

    /// Turns tokens into text one at a time.
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(self)
    }

    /// Turns tokens into text that goes on with the text of `context`.
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn detokenizer_after(&self, context: &[u32]) -> Result<Detokenizer<'_>, Error> {
        Detokenizer::after(self, context)
    }

    /// Whether answers come in channels, as gpt-oss gives them.
    pub fn has_channels(&self) -> bool {
        self.channels
    }

    /// The text of a special token; `None` for others.
    pub fn special_text(&self, id: u32) -> Option<&str> {
        let added = self.added.get(&id)?;
        added.special.then_some(added.content.as_str())
    }

    /// The text of a token that was added to the vocabulary, special or not.
    pub(crate) fn added_text(&self, id: u32) -> Option<&str> {
        self.added.get(&id).map(|added| added.content.as_str())
    }

    /// Whether a token is a mark that no text has: a special one, or one that was added and looks like one.
    pub(crate) fn is_mark(&self, id: u32) -> bool {
        let is_mark = |added: &AddedToken| {
            let text = added.content.as_str();
            let between = |open, close| text.len() > 2 && text.starts_with(open) && text.ends_with(close);
            added.special || between('<', '>') || between('[', ']')
        };
        self.added.get(&id).is_some_and(is_mark)
    }

    /// Marks and what is between them: the token of a mark, or text.
    pub fn marks_in<'a>(&self, text: &'a str) -> Vec<Result<u32, &'a str>> {
        let mut pieces = Vec::new();
        let (mut start, mut at) = (0, 0);
        while let Some(letter) = text[at..].chars().next() {
            let here = self.added.iter().filter(|(id, added)| {
                !added.content.is_empty() && text[at..].starts_with(&added.content) && self.is_mark(**id)
            });
            match here.max_by_key(|(_, added)| added.content.len()) {
                Some((&id, added)) => {
                    if start < at {
                        pieces.push(Err(&text[start..at]));
                    }
                    pieces.push(Ok(id));
                    at += added.content.len();
                    start = at;
                }
                None => at += letter.len_utf8(),
            }
        }
        if start < at {
            pieces.push(Err(&text[start..at]));
        }
        pieces
    }

    /// A token as the vocabulary has it.
    pub(crate) fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    pub(crate) fn spelling(&self) -> &Spelling {
        self.spelling.get_or_init(|| {
            let decoder = serde_json::to_value(self.inner.get_decoder());
            Spelling::of(&decoder.unwrap_or_default())
        })
    }

    /// The texts of all special tokens.
    pub(crate) fn special_texts(&self) -> impl Iterator<Item = &str> {
        let special = self.added.values().filter(|token| token.special);
        special
            .map(|token| token.content.as_str())
            .filter(|text| !text.is_empty())
    }

    /// The id of the token that is spelled exactly so.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The id of the token that ends a text, if `tokenizer_config.json` names one.
    pub fn eos_id(&self) -> Option<u32> {
        self.special.text("eos_token").and_then(|text| self.id(text))
    }

    /// Number of tokens, special ones included.
    pub fn vocabulary_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Role and text of each special token: `("bos_token", "<s>")`.
    pub fn special_tokens(&self) -> &[(String, String)] {
        &self.special.roles
    }
}

fn from_json(bytes: &[u8]) -> Result<Converted, Error> {
    let parsed = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|panic| refused(FILE, panic))?;
    let mut inner = parsed.map_err(|error| Error::bad_file(FILE, error))?;
    // A prompt is neither cut nor padded, whatever the tokenizer was saved with.
    inner
        .with_truncation(None)
        .map_err(|error| Error::bad_file(FILE, error))?;
    inner.with_padding(None);
    let file: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let growth = growth(&file["normalizer"]);
    if growth > MOST_GROWTH {
        let found = format!("normalizer makes {growth} letters of one, expected at most {MOST_GROWTH}");
        return Err(Error::bad_file(FILE, found));
    }
    mend_decoder(&file, &mut inner);
    Ok(Converted {
        file: FILE.into(),
        inner,
        around: [None; 2],
        space_first: false,
    })
}

/// How many letters a normalizer may make of one: each that is known makes three at most, but many one after the other, or a long text for
/// each letter, fill the memory.
fn growth(normalizer: &Value) -> usize {
    let text = match normalizer["type"].as_str() {
        Some("Replace") => &normalizer["content"],
        Some("Prepend") => &normalizer["prepend"],
        _ => &Value::Null,
    };
    let own = text.as_str().map_or(1, |text| text.chars().count().max(1));
    let inner = normalizer["normalizers"].as_array().into_iter().flatten();
    inner.map(growth).fold(own, usize::saturating_mul)
}

/// Some conversions of byte-level tokenizers carry a decoder of SentencePiece's, which leaves the letters that stand for bytes.
fn mend_decoder(file: &Value, inner: &mut tokenizers::Tokenizer) {
    let has = |part: &str| mentions_bytes(&file[part]);
    if (has("pre_tokenizer") || has("normalizer")) && !has("decoder") {
        inner.with_decoder(Some(ByteLevel::default()));
    }
}

/// Whether a part of a tokenizer, or one of the parts that it is a sequence of, is of the byte-level kind.
fn mentions_bytes(part: &Value) -> bool {
    let inner = ["pretokenizers", "normalizers", "decoders"].into_iter();
    let mut inner = inner.filter_map(|list| part[list].as_array()).flatten();
    part["type"] == "ByteLevel" || inner.any(mentions_bytes)
}

/// A panic of the library that reads the file: the file contradicts itself in a way that it does not check.
fn refused(file: &str, panic: String) -> Error {
    Error::bad_file(file, format!("the tokenizer library cannot work with it ({panic})"))
}
