//! Tokenizers that are stored in other files than `tokenizer.json`, built of the same parts.
//!
//! Each format says in a [`Draft`] what its file holds; what all have in common is done here: the tokens that
//! `tokenizer_config.json` and `added_tokens.json` add, their ids, and what stands around a text.

mod base64;
mod byte_level;
mod protobuf;
mod sentencepiece;
mod tekken;
mod tiktoken;
mod vocabulary;

use std::collections::{BTreeMap, HashMap};

pub(crate) use byte_level::letters as byte_letters;
use serde_json::{Map, Value};
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::BPE;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::{self, NormalizerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, ModelWrapper};

use crate::Error;
use crate::files::{Files, OtherTokenizer, parse_object};
use crate::foreign::guarded;
use crate::special::SpecialTokens;

/// SentencePiece's visible space.
pub(crate) const SPACE: char = '\u{2581}';

const CONFIG: &str = "tokenizer_config.json";
const ADDED: &str = "added_tokens.json";

/// A tokenizer, and what its library does not do for it.
pub(crate) struct Converted {
    /// The file that it comes from.
    pub file: String,
    pub inner: tokenizers::Tokenizer,
    /// Tokens that stand before and after a text.
    pub around: [Option<u32>; 2],
    /// Whether the first word of a text, and no other, gets a space.
    pub space_first: bool,
}

/// What a format's file says.
struct Draft {
    file: String,
    model: Model,
    normalizers: Vec<NormalizerWrapper>,
    pre_tokenizers: Vec<PreTokenizerWrapper>,
    decoder: DecoderWrapper,
    /// Tokens that are found in a text before it is cut.
    added: BTreeMap<u32, AddedToken>,
    /// Role and text of special tokens, where `tokenizer_config.json` names none.
    roles: Vec<(&'static str, String)>,
    /// Whether the first and the last token stand around a text, where `tokenizer_config.json` does not say.
    adds: [bool; 2],
    space_first: bool,
}

enum Model {
    Bpe {
        vocabulary: HashMap<String, u32>,
        merges: Vec<(String, String)>,
        /// Of SentencePiece's kind: the unknown token, and whether bytes stand for unknown characters.
        unknown: Option<(String, bool)>,
        /// Whether a piece of text that is a token is not cut further.
        whole_first: bool,
    },
    Unigram {
        pieces: Vec<(String, f64)>,
        unknown: usize,
        byte_fallback: bool,
    },
}

/// What `tokenizer_config.json` and `config.json` say about the kind of tokenizer.
struct Settings {
    config: Map<String, Value>,
    model_type: Option<String>,
    /// Names of pieces by id, which go before those of the file.
    names: BTreeMap<u32, AddedToken>,
}

impl Settings {
    fn read(files: &Files, special: &SpecialTokens) -> Result<Settings, Error> {
        let mut names: BTreeMap<u32, AddedToken> = special.listed.iter().cloned().collect();
        for (text, id) in parse_object(ADDED, files.added_tokens.as_deref())? {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let id = id.ok_or_else(|| Error::bad_file(ADDED, format!("{text:?} has no token id")))?;
            names.entry(id).or_insert_with(|| {
                let special = special.added.iter().find(|token| token.content == text);
                special
                    .cloned()
                    .unwrap_or_else(|| AddedToken::from(text, false).normalized(false))
            });
        }
        Ok(Settings {
            config: parse_object(CONFIG, files.tokenizer_config.as_deref())?,
            model_type: files
                .config
                .get("model_type")
                .and_then(Value::as_str)
                .map(str::to_owned),
            names,
        })
    }

    /// The class of the tokenizer in transformers, as slow and fast ones are both called.
    fn class(&self) -> Option<&str> {
        let class = self.config.get("tokenizer_class")?.as_str()?;
        Some(class.strip_suffix("Fast").unwrap_or(class))
    }

    /// Whether the class is none of a known kind but that of any tokenizer.
    fn has_no_own_class(&self) -> bool {
        matches!(
            self.class(),
            None | Some("PreTrainedTokenizer" | "TokenizersBackend" | "PythonBackend")
        )
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, Error> {
        match self.config.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(found) => Err(Error::bad_file(
                CONFIG,
                format!("{key} is {found}, expected true or false"),
            )),
        }
    }

    /// An error that says for which kinds of tokenizers the file is read.
    fn unsupported(&self, file: &str, known: &str) -> Error {
        let of = match (self.config.get("tokenizer_class"), &self.model_type) {
            (Some(class), _) => format!("the tokenizer_class {class}"),
            (None, Some(model)) => format!("a model of type {model:?} without tokenizer_class"),
            (None, None) => "an unknown tokenizer_class".into(),
        };
        unsupported(file, format!("of {of}; those that are read: {known}"))
    }
}

fn unsupported(file: &str, what: String) -> Error {
    Error::UnsupportedTokenizer {
        file: file.to_owned(),
        what,
    }
}

/// Reads the first file whose format is known. The roles that only the file knows are added to `special`.
pub(crate) fn read(files: &Files, special: &mut SpecialTokens) -> Result<Converted, Error> {
    let settings = Settings::read(files, special)?;
    let others = &files.other_tokenizers;
    let named = |name: &str| others.iter().find(|file| file.name == name);
    let draft = if let Some(file) = named("tekken.json") {
        tekken::read(file)?
    } else if let Some(file) = others.iter().find(|file| file.is_tiktoken()) {
        tiktoken::read(file, &settings)?
    } else if let Some(file) = others.iter().find(|file| file.is_model()) {
        match tiktoken::is_text(&file.bytes) {
            true => tiktoken::read(file, &settings)?,
            false => sentencepiece::read(file, &settings)?,
        }
    } else if let (Some(vocabulary), Some(merges)) = (named("vocab.json"), named("merges.txt")) {
        vocabulary::read(vocabulary, merges, &settings)?
    } else if let [first, ..] = others.as_slice() {
        let known = "tekken.json, *.tiktoken, tiktoken.model, tokenizer.model, vocab.json with merges.txt";
        return Err(unsupported(&first.name, format!("alone; those that are read: {known}")));
    } else {
        return Err(Error::MissingFile {
            file: "tokenizer.json",
            need: "turns text into tokens",
        });
    };
    finish(draft, &settings, special)
}

impl OtherTokenizer {
    fn is_tiktoken(&self) -> bool {
        self.name.ends_with(".tiktoken") || self.name == "tiktoken.model"
    }

    fn is_model(&self) -> bool {
        self.name.ends_with(".model")
    }
}

fn finish(mut draft: Draft, settings: &Settings, special: &mut SpecialTokens) -> Result<Converted, Error> {
    let file = std::mem::take(&mut draft.file);
    for (role, text) in draft.roles {
        if special.text(role).is_none() && settings.config.get(role).is_none() {
            special.add_role(role, text);
        }
    }
    draft
        .added
        .extend(settings.names.iter().map(|(id, token)| (*id, token.clone())));
    draft.model.rename(&draft.added);
    let refused =
        |panic: String| Error::bad_file(&file, format!("the tokenizer library cannot work with it ({panic})"));
    let inner = guarded(|| {
        let mut inner = tokenizers::Tokenizer::new(draft.model.build()?);
        if !draft.normalizers.is_empty() {
            inner.with_normalizer(Some(normalizers::Sequence::new(draft.normalizers)))?;
        }
        if !draft.pre_tokenizers.is_empty() {
            inner.with_pre_tokenizer(Some(Sequence::new(draft.pre_tokenizers)));
        }
        inner.with_decoder(Some(draft.decoder));
        inner.add_tokens(draft.added.values().cloned())?;
        Ok::<_, tokenizers::Error>(inner)
    });
    let inner = inner.map_err(refused)?.map_err(|error| Error::bad_file(&file, error))?;
    for (&id, AddedToken { content, .. }) in &draft.added {
        let found = inner.token_to_id(content);
        if found != Some(id) {
            let found = found.map_or("none".into(), |found| found.to_string());
            let what = format!("the token {content:?} has the id {id} among added tokens, but {found} in {file}");
            return Err(Error::bad_file(CONFIG, what));
        }
    }
    let around = [("add_bos_token", "bos_token", 0), ("add_eos_token", "eos_token", 1)];
    let mut ids = [None; 2];
    for (key, role, side) in around {
        if settings.flag(key)?.unwrap_or(draft.adds[side]) {
            ids[side] = special.text(role).and_then(|text| inner.token_to_id(text));
        }
    }
    Ok(Converted {
        file,
        inner,
        around: ids,
        space_first: draft.space_first,
    })
}

impl Model {
    /// Gives added tokens their places in the vocabulary, which may lie beyond its end.
    fn rename(&mut self, added: &BTreeMap<u32, AddedToken>) {
        match self {
            Model::Bpe { vocabulary, .. } => {
                let new: Vec<(&u32, &AddedToken)> = added
                    .iter()
                    .filter(|(_, token)| !vocabulary.contains_key(&token.content))
                    .collect();
                let taken: std::collections::HashSet<u32> = new.iter().map(|(id, _)| **id).collect();
                vocabulary.retain(|_, id| !taken.contains(id));
                vocabulary.extend(new.into_iter().map(|(id, token)| (token.content.clone(), *id)));
            }
            Model::Unigram { pieces, .. } => {
                for (id, token) in added {
                    if let Some(piece) = pieces.get_mut(*id as usize) {
                        piece.0.clone_from(&token.content);
                    }
                }
            }
        }
    }

    fn build(self) -> Result<ModelWrapper, tokenizers::Error> {
        match self {
            Model::Bpe {
                vocabulary,
                merges,
                unknown,
                whole_first,
            } => {
                // A piece that was renamed is no part of others any more.
                let is_known = |text: &String| vocabulary.contains_key(text);
                let merges = merges
                    .into_iter()
                    .filter(|(left, right)| is_known(left) && is_known(right) && is_known(&format!("{left}{right}")))
                    .collect();
                let vocabulary: tokenizers::models::bpe::Vocab = vocabulary.into_iter().collect();
                let mut builder = BPE::builder()
                    .vocab_and_merges(vocabulary, merges)
                    .ignore_merges(whole_first);
                if let Some((unknown, byte_fallback)) = unknown {
                    builder = builder.unk_token(unknown).fuse_unk(true).byte_fallback(byte_fallback);
                }
                Ok(builder.build()?.into())
            }
            Model::Unigram {
                pieces,
                unknown,
                byte_fallback,
            } => Ok(Unigram::from(pieces, Some(unknown), byte_fallback)?.into()),
        }
    }
}
