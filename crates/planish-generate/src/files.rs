//! The small files beside the weights that text generation reads, as bytes: where they lie is the checkpoint's business.

use planish_checkpoint::Checkpoint;
use serde_json::{Map, Value};

use crate::Error;

/// The bytes of each file, `None` where the checkpoint has none.
#[derive(Clone, Debug, Default)]
pub struct Files {
    /// `tokenizer.json`.
    pub tokenizer: Option<Vec<u8>>,
    /// `tokenizer_config.json`.
    pub tokenizer_config: Option<Vec<u8>>,
    /// `special_tokens_map.json`, written by older versions of transformers.
    pub special_tokens_map: Option<Vec<u8>>,
    /// `chat_template.jinja`, which goes before the template in `tokenizer_config.json`.
    pub chat_template: Option<Vec<u8>>,
    /// `chat_template.json`, which multimodal repositories have.
    pub chat_template_json: Option<Vec<u8>>,
    /// Files of tokenizers in other formats, where there is no `tokenizer.json`.
    pub other_tokenizers: Vec<OtherTokenizer>,
    /// `added_tokens.json`, which goes with them.
    pub added_tokens: Option<Vec<u8>>,
    /// `additional_chat_templates/tool_use.jinja`.
    pub tool_use_template: Option<Vec<u8>>,
    /// `generation_config.json`.
    pub generation_config: Option<Vec<u8>>,
    /// `config.json`.
    pub config: Map<String, Value>,
}

/// A file of a tokenizer in another format than `tokenizer.json`.
#[derive(Clone, Debug)]
pub struct OtherTokenizer {
    /// Its name in the checkpoint.
    pub name: String,
    /// What it holds.
    pub bytes: Vec<u8>,
}

/// What tokenizers are stored in besides `tokenizer.json` and `*.tiktoken`.
const OTHER_TOKENIZERS: [&str; 7] = [
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "tekken.json",
    "vocab.txt",
    "tiktoken.model",
];

impl Files {
    /// Those of a checkpoint.
    ///
    /// # Errors
    /// When a file is there and cannot be read.
    pub fn of(checkpoint: &Checkpoint) -> Result<Files, Error> {
        let read = |name: &str| checkpoint.file(name).map(|bytes| bytes.map(|bytes| bytes.to_vec()));
        let tokenizer = read("tokenizer.json")?;
        let mut other_tokenizers = Vec::new();
        if tokenizer.is_none() {
            for name in checkpoint
                .files()
                .iter()
                .chain(checkpoint.linked_files())
                .chain(checkpoint.large_files())
            {
                if is_tokenizer(name)
                    && let Some(bytes) = read(name)?
                {
                    let name = name.clone();
                    other_tokenizers.push(OtherTokenizer { name, bytes });
                }
            }
        }
        Ok(Files {
            added_tokens: read("added_tokens.json")?,
            tokenizer,
            tokenizer_config: read("tokenizer_config.json")?,
            special_tokens_map: read("special_tokens_map.json")?,
            chat_template: read("chat_template.jinja")?,
            chat_template_json: read("chat_template.json")?,
            other_tokenizers,
            tool_use_template: read("additional_chat_templates/tool_use.jinja")?,
            generation_config: read("generation_config.json")?,
            config: checkpoint.config().clone(),
        })
    }

    /// Whether there is anything that could turn text into tokens.
    pub fn have_tokenizer(&self) -> bool {
        self.tokenizer.is_some() || !self.other_tokenizers.is_empty()
    }
}

fn is_tokenizer(name: &str) -> bool {
    OTHER_TOKENIZERS.contains(&name) || name.ends_with(".tiktoken") && !name.contains('/')
}

/// A JSON object, or an empty one if the file is absent.
pub(crate) fn parse_object(file: &str, bytes: Option<&[u8]>) -> Result<Map<String, Value>, Error> {
    let Some(bytes) = bytes else { return Ok(Map::new()) };
    match serde_json::from_slice(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Error::bad_file(file, "expected a JSON object")),
        Err(error) => Err(Error::bad_file(file, error)),
    }
}

/// A text file, or `None` if it is absent.
pub(crate) fn parse_text<'a>(file: &str, bytes: Option<&'a [u8]>) -> Result<Option<&'a str>, Error> {
    bytes
        .map(|bytes| std::str::from_utf8(bytes).map_err(|error| Error::bad_file(file, error)))
        .transpose()
}
