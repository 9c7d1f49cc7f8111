//! The errors of the library's front door: those of the layers below, and of what is asked here.

/// What went wrong, in words a user can act on. Programs that know a cure in words of their own match on the inner errors.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be fetched.
    #[error(transparent)]
    Hub(#[from] planish_checkpoint::hub::HubError),
    /// The checkpoint cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] planish_checkpoint::Error),
    /// A conversion is refused or failed.
    #[error(transparent)]
    Quantize(#[from] planish_quantize::Error),
    /// The model cannot be built or run.
    #[error(transparent)]
    Model(#[from] planish_model::Error),
    /// Text, tokens or sampling.
    #[error(transparent)]
    Generate(#[from] planish_generate::Error),
    /// Bits or a group that the format does not have.
    #[error(transparent)]
    Packing(#[from] planish_format::FormatError),
    /// The memory ran out.
    #[error(transparent)]
    Memory(#[from] planish_format::memory::OutOfMemory),
    /// A configuration with a value that is not allowed.
    #[error("{key} is {found}, expected {expected}")]
    Config {
        /// The key.
        key: String,
        /// The value it has.
        found: String,
        /// The values it may have.
        expected: &'static str,
    },
    /// The checkpoint has no tokenizer, or one that is not read.
    #[error("the checkpoint has no tokenizer.json, which turns text into tokens{}", other_tokenizer(found.as_deref()))]
    NoTokenizer {
        /// The tokenizer that is not read, and why.
        found: Option<String>,
    },
    /// A conversation with a model that has no chat template.
    #[error("the model has no chat template: it was not trained for conversations")]
    NoChatTemplate,
    /// A text that is too short to be evaluated.
    #[error("{tokens} tokens are too few for a chunk of {chunk}: give a longer text or shorter chunks")]
    ShortText {
        /// Of the text.
        tokens: usize,
        /// Tokens of a chunk.
        chunk: usize,
    },
    /// More tokens than the model can look back on.
    #[error("{tokens} tokens are more than the model's context of {context}")]
    Context {
        /// Asked for.
        tokens: usize,
        /// Of the model.
        context: usize,
    },
    /// What was measured of layers cannot be read, or is of another model or text.
    #[error("what was measured of the layers: {what}")]
    Sensitivities {
        /// What was expected and what was found.
        what: String,
    },
    /// Widths by layer that are neither a mix nor in a file.
    #[error("{recipe}: {what}")]
    Widths {
        /// The name that was given.
        recipe: String,
        /// What was expected and what was found.
        what: String,
    },
    /// A line of multiple-choice questions that cannot be read.
    #[error("line {line}: {what}")]
    Task {
        /// Its number, from 1.
        line: usize,
        /// What was expected and what was found.
        what: String,
    },
    /// A choice that cannot be scored.
    #[error("the choice {choice:?} cannot be scored: {what}")]
    Choice {
        /// Its text.
        choice: String,
        /// Why not.
        what: String,
    },
    /// Two models whose logits cannot be compared.
    #[error("a vocabulary of {reference} cannot be compared with one of {model}")]
    Vocabularies {
        /// Tokens of the reference.
        reference: usize,
        /// Tokens of the model.
        model: usize,
    },
}

fn other_tokenizer(found: Option<&str>) -> String {
    let cure = "convert it in Python with transformers.AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)";
    found.map_or(String::new(), |found| format!("; not read: {found}; {cure}"))
}

impl Error {
    pub(crate) fn config(key: &str, found: impl std::fmt::Display, expected: &'static str) -> Error {
        Error::Config {
            key: key.to_owned(),
            found: found.to_string(),
            expected,
        }
    }
}
