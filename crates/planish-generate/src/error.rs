//! What can go wrong between text and tokens, in words a user can act on.

/// Names the file, option or limit, what was expected and what was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint lacks a file that text generation needs.
    #[error("the checkpoint has no {file}, which {need}")]
    MissingFile {
        /// Name of the file inside the checkpoint.
        file: &'static str,
        /// What cannot be done without it.
        need: &'static str,
    },
    /// A file of the checkpoint whose content contradicts its format.
    #[error("{file}: {what}")]
    BadFile {
        /// Name of the file inside the checkpoint.
        file: String,
        /// The key, what was expected and what was found.
        what: String,
    },
    /// A tokenizer in a format, or of a kind, that is not read.
    #[error("{file} {what}")]
    UnsupportedTokenizer {
        /// Name of the file inside the checkpoint.
        file: String,
        /// What of it is not read, and what is.
        what: String,
    },
    /// Text or ids that the tokenizer refuses.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template that does not compile, or that refuses these messages.
    #[error("chat template: {0}")]
    Template(String),
    /// An option outside its range.
    #[error("{option} is {found}, expected {expected}")]
    Option {
        /// Name of the option, as in generation_config.json.
        option: &'static str,
        /// The value given.
        found: String,
        /// The values allowed.
        expected: &'static str,
    },
    /// A schema, a regular expression or a grammar that cannot be followed.
    #[error("the form of the answer: {0}")]
    Constraint(String),
    /// Nothing to continue.
    #[error("the prompt is empty: it has no tokens to continue from")]
    EmptyPrompt,
    /// A token the model does not have.
    #[error(
        "token {token} is outside the model's vocabulary of {vocabulary} tokens: tokenizer and model do not belong together"
    )]
    UnknownToken {
        /// The token's id.
        token: u32,
        /// Number of tokens the model knows.
        vocabulary: usize,
    },
    /// The prompt leaves no room for an answer.
    #[error("the prompt has {prompt} tokens, but the model's context holds {context}: shorten the prompt")]
    ContextFull {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens the model can look back on, the next one included.
        context: usize,
    },
    /// Logits that are all NaN or minus infinity.
    #[error(
        "the model's output holds no number to choose a token by (all NaN or -inf): every token is forbidden, the weights are damaged, or the architecture is misread"
    )]
    NoFiniteLogit,
    /// A file of the checkpoint that cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] planish_checkpoint::Error),
    /// The model cannot compute.
    #[error(transparent)]
    Model(#[from] planish_model::Error),
}

impl Error {
    /// A file that is not what it should be.
    pub(crate) fn bad_file(file: impl Into<String>, what: impl std::fmt::Display) -> Error {
        Error::BadFile {
            file: file.into(),
            what: what.to_string(),
        }
    }
}
