//! Tokens, their kinds and the special ones of a GGUF file, checked.

use std::collections::HashMap;

use serde::ser::{Serialize, SerializeMap, Serializer};

use super::super::fault::Fault;
use super::super::metadata::Metadata;
use super::pre_tokenizers;

/// The metadata key of the kind of tokenizer.
pub(super) const MODEL: &str = "tokenizer.ggml.model";

/// The kinds of tokenizers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Model {
    ByteLevel,
    SentencePiece,
}

/// `tokenizer.ggml.token_type`: 2 and 3 are special, 4 is matched whole but is text; all others are ordinary.
mod kind {
    pub const UNKNOWN: i64 = 2;
    pub const CONTROL: i64 = 3;
    pub const USER_DEFINED: i64 = 4;
    pub const UNUSED: i64 = 5;
    pub const BYTE: i64 = 6;
}

/// Everything about tokens but how text is cut into them. Ids are indexes into `tokens`.
pub(super) struct Vocabulary<'a> {
    pub model: Model,
    pub tokens: Vec<&'a str>,
    /// Token to id; of equal tokens the first.
    pub ids: HashMap<&'a str, usize>,
    kinds: Option<Vec<i64>>, // (tokens)
    pub bos: Option<usize>,
    pub eos: Option<usize>,
    pub unknown: Option<usize>,
    pub padding: Option<usize>,
    pub add_bos: bool,
    pub add_eos: bool,
}

impl<'a> Vocabulary<'a> {
    pub fn read(metadata: &'a Metadata) -> Result<Vocabulary<'a>, Fault> {
        let model = match metadata.need(MODEL, metadata.text(MODEL)?)? {
            "gpt2" => Model::ByteLevel,
            // Gemma 4's lists its merges.
            "llama" | "gemma4" => Model::SentencePiece,
            other => {
                let what = format!(
                    "metadata key `{MODEL}`: the tokenizer `{other}` is not read; planish reads gpt2, llama and gemma4"
                );
                return Err(Fault::unsupported(what));
            }
        };
        let key = "tokenizer.ggml.tokens";
        let tokens = metadata.need(key, metadata.texts(key)?)?;
        let key = "tokenizer.ggml.token_type";
        let kinds = metadata.integers(key)?;
        if let Some(kinds) = kinds.as_ref().filter(|kinds| kinds.len() != tokens.len()) {
            return Err(Fault::key(
                key,
                &format!("{} values, one for each token", tokens.len()),
                kinds.len(),
            ));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in tokens.iter().enumerate() {
            ids.entry(*token).or_insert(id);
        }
        let special = |name: &str| special_id(metadata, name, tokens.len());
        let add_bos_by_default = match model {
            Model::ByteLevel => pre_tokenizers::of(metadata).is_ok_and(|row| row.add_bos),
            Model::SentencePiece => true,
        };
        Ok(Vocabulary {
            model,
            bos: special("bos")?,
            eos: special("eos")?,
            unknown: special("unknown")?,
            padding: special("padding")?,
            add_bos: metadata
                .flag("tokenizer.ggml.add_bos_token")?
                .unwrap_or(add_bos_by_default),
            add_eos: metadata.flag("tokenizer.ggml.add_eos_token")?.unwrap_or(false),
            tokens,
            ids,
            kinds,
        })
    }

    fn kind(&self, id: usize) -> Option<i64> {
        self.kinds.as_ref().map(|kinds| kinds[id])
    }

    /// A token that is not text.
    pub fn is_special(&self, id: usize) -> bool {
        let named = [self.bos, self.eos, self.unknown, self.padding].contains(&Some(id));
        named || matches!(self.kind(id), Some(kind::UNKNOWN | kind::CONTROL))
    }

    /// A token that is found in the text before it is cut.
    pub fn is_added(&self, id: usize) -> bool {
        self.is_special(id) || self.kind(id) == Some(kind::USER_DEFINED)
    }

    /// A token made by merging others.
    pub fn is_merged(&self, id: usize) -> bool {
        !self.is_added(id) && !matches!(self.kind(id), Some(kind::UNUSED | kind::BYTE))
    }

    pub fn text(&self, id: Option<usize>) -> Option<&'a str> {
        id.map(|id| self.tokens[id])
    }
}

/// The id of `tokenizer.ggml.NAME_token_id`. Some files write -1 for none.
pub(super) fn special_id(metadata: &Metadata, name: &str, tokens: usize) -> Result<Option<usize>, Fault> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    if metadata.is_none_marker(&key) {
        return Ok(None);
    }
    match metadata.count(&key)? {
        Some(id) if id >= tokens => Err(Fault::key(&key, &format!("an id below {tokens}"), id)),
        id => Ok(id),
    }
}

/// As the `vocab` object of tokenizer.json, in the order of the ids.
impl Serialize for Vocabulary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.ids.len()))?;
        for (id, token) in self.tokens.iter().enumerate() {
            if self.ids[token] == id {
                map.serialize_entry(token, &id)?;
            }
        }
        map.end()
    }
}
