//! Text to token ids and back, as transformers does it from `tokenizer.json`.

use tokenizers::AddedToken;

use crate::files::Files;
use crate::special::SpecialTokens;
use crate::{Detokenizer, Error};

/// The tokenizer of a checkpoint. Ids are positions in the model's vocabulary.
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: SpecialTokens,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and the special tokens of `tokenizer_config.json`.
    ///
    /// # Errors
    /// When `tokenizer.json` is missing or one of the files contradicts its format.
    pub fn new(files: &Files) -> Result<Tokenizer, Error> {
        const FILE: &str = "tokenizer.json";
        let bytes = files.tokenizer.as_deref().ok_or(Error::MissingFile {
            file: FILE,
            need: "turns text into tokens",
        })?;
        let mut inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(|error| Error::bad_file(FILE, error))?;
        // A prompt is neither cut nor padded, whatever the tokenizer was saved with.
        inner
            .with_truncation(None)
            .map_err(|error| Error::bad_file(FILE, error))?;
        inner.with_padding(None);
        let special = SpecialTokens::read(files)?;
        let known = inner.get_added_tokens_decoder();
        let is_known = |token: &&AddedToken| known.values().any(|other| other.content == token.content);
        let missing: Vec<AddedToken> = special.added.iter().filter(|token| !is_known(token)).cloned().collect();
        inner
            .add_tokens(missing)
            .map_err(|error| Error::bad_file("tokenizer_config.json", error))?;
        Ok(Tokenizer { inner, special })
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
        let encoding = self
            .inner
            .encode_fast(text, add_special_tokens)
            .map_err(|error| Error::Tokenizer(error.to_string()))?;
        Ok(encoding.get_ids().to_vec())
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
        self.inner
            .decode(ids, skip_special_tokens)
            .map_err(|error| Error::Tokenizer(error.to_string()))
    }

    /// Turns tokens into text one at a time.
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer::new(self)
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
